#include "kernels/cuda/emulation/gpu_file.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace dsm::emulation {
namespace {

using Values = decltype(GpuFile::values);

const Values& of_one_that_is_well() {
  static const Values values{
      {"minor", 0},
      {"lost", 0},
      {"reset_required", 0},
      {"utilisation", 0},  // percent
      {"memory_total", 80ULL << 30},
      {"memory_used", 0},
      {"temperature", 45},  // Celsius
      {"power", 120'000},   // mW
      {"sm_clock", 1980},   // MHz
      {"memory_clock", 2619},
      {"clock_reasons", 0},  // why clocks are lowered: NVML's bits
      {"ecc_corrected", 0},
      {"ecc_uncorrected", 0},
      {"rows_corrected", 0},
      {"rows_uncorrected", 0},
      {"row_pending", 0},
      {"row_failed", 0},
      {"links", 18},
      {"links_up", 18},
      {"link_errors", 0},  // of each kind, on each link
  };
  return values;
}

[[noreturn]] void refuse(std::string_view line) {
  std::fprintf(stderr, "emulated NVML: nothing is told by the line '%.*s'\n",
               static_cast<int>(line.size()), line.data());
  std::abort();
}

void take(GpuFile& gpu, std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) refuse(line);
  const std::string_view name = line.substr(0, space);
  const std::string_view said = line.substr(space + 1);
  std::uint64_t number = 0;
  const bool silent = said == "-";
  const auto end = said.data() + said.size();
  if (!silent && std::from_chars(said.data(), end, number).ptr != end) refuse(line);
  if (name == "xid" && !silent) {
    gpu.xids.push_back(number);
    return;
  }
  const auto known = gpu.values.find(name);
  if (known == gpu.values.end()) refuse(line);
  known->second = silent ? std::nullopt : std::optional(number);
}

}  // namespace

std::optional<std::uint64_t> GpuFile::value(std::string_view name) const {
  return values.find(name)->second;
}

std::string gpu_folder() {
  const char* said = std::getenv("DSM_EMULATED_NVML");
  return said != nullptr ? said : "";
}

std::optional<GpuFile> read_gpu_file(const std::string& address) {
  std::ifstream file(gpu_folder() + "/" + address);
  if (!file) return std::nullopt;
  const std::string text(std::istreambuf_iterator<char>(file), {});
  GpuFile gpu{.values = of_one_that_is_well(), .xids = {}};
  std::string_view rest = text;
  for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
    const std::string_view line = rest.substr(0, end);
    if (!line.empty()) take(gpu, line);
    rest.remove_prefix(end + 1);
  }
  return gpu;
}

}  // namespace dsm::emulation
