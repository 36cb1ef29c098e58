// Measures the CUDA backend (docs/benchmarks.md):
//   gpu-bench parts                    the parts of the whole, one a line
//   gpu-bench PART... [--folder DIR]   measures a part; a JSON line for each measurement
//   gpu-bench table < LINES            the lines as Markdown
// and is the process that tries kernels for the part trials:MODEL (worker/kernel_startup.h).
// A model's checkpoint is written into a new folder in DIR (the system's one for temporary files)
// and removed again: up to 32 GB. Exit code 77: there is no GPU that can be used.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu/kernel_bench.h"
#include "bench/gpu/model_bench.h"
#include "bench/gpu/trial_bench.h"
#include "bench/gpu/type_bench.h"
#include "worker/device/devices.h"
#include "worker/kernel_startup.h"

namespace {

using namespace dsm;

constexpr int kNoGpu = 77;

void print(const bench::Measurement& measurement) {
  std::printf("%s\n", bench::json_line(measurement).c_str());
  std::fflush(stdout);
}

void say(const std::string& line) {
  std::fprintf(stderr, "gpu-bench: %s\n", line.c_str());
}

// Gone with its object.
struct TemporaryFolder {
  std::filesystem::path path;

  explicit TemporaryFolder(const std::string& in) {
    std::string name = in + "/gpu-bench-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder in " + in);
    path = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

// Parts that are steps of a whole model. One kernel does no more rows than 16.
const std::pair<const char*, bench::ModelPlan> kModelParts[] = {
    {"model", {}},
    {"model-wide", {.wide_exact = true, .decode_rows = {64}}},
    {"model-loose", {.deterministic = false}},
    {"model-megakernel", {.deterministic = false, .megakernel = true, .decode_rows = {1, 8}}},
    {"model-fp8", {.deterministic = false, .fp8 = true}},
};

void print_part(const char* what, const bench::ModelShape& shape) {
  std::printf("%s:%s\n", what, shape.name.c_str());
}

int list_parts() {
  for (const bench::ModelShape& shape : bench::public_shapes()) {
    for (const char* what : {"trials", "kernels", "types"}) print_part(what, shape);
    for (const auto& [what, plan] : kModelParts) print_part(what, shape);
  }
  return 0;
}

Status measure(const std::string& part, const std::string& folder) {
  const auto colon = part.find(':');
  const std::string what = part.substr(0, colon);
  const auto* shape =
      colon == std::string::npos ? nullptr : bench::find_shape(part.substr(colon + 1));
  if (shape != nullptr && what == "kernels") return bench::measure_kernels(*shape, {}, print);
  if (shape != nullptr && what == "types") return bench::measure_types(*shape, {}, print);
  if (shape != nullptr && what == "trials") {
    const TemporaryFolder temporary(folder);
    const bench::TrialPlan plan{.program = {"/proc/self/exe", std::string(worker::kTrialsCommand)}};
    return bench::measure_trials(*shape, plan, temporary.path, print, say);
  }
  for (const auto& [name, plan] : kModelParts) {
    if (shape == nullptr || what != name) continue;
    const TemporaryFolder temporary(folder);
    return bench::measure_model(*shape, plan, temporary.path, print);
  }
  return fail(ErrorKind::kInvalid, "no part is called '" + part + "': see gpu-bench parts");
}

int run(std::vector<std::string> arguments) {
  if (arguments.size() == 1 && arguments[0] == "parts") return list_parts();
  if (arguments.size() == 2 && arguments[0] == worker::kTrialsCommand) {
    return worker::try_kernels(arguments[1]);
  }
  if (arguments.size() == 1 && arguments[0] == "table") {
    const auto text = bench::tables(std::cin);
    if (!text) throw std::runtime_error(text.error().message);
    std::cout << *text;
    return 0;
  }
  std::string folder = std::filesystem::temp_directory_path();
  if (arguments.size() > 2 && arguments[arguments.size() - 2] == "--folder") {
    folder = arguments.back();
    arguments.resize(arguments.size() - 2);
  }
  if (arguments.empty()) {
    throw std::runtime_error("usage: gpu-bench parts | table | PART... [--folder DIR]");
  }
  if (const auto gpu = device::find_device("cuda"); !gpu) {
    std::fprintf(stderr, "gpu-bench: skipped: %s\n", gpu.error().message.c_str());
    return kNoGpu;
  }
  for (const std::string& part : arguments) {
    if (const Status done = measure(part, folder); !done) {
      throw std::runtime_error(part + ": " + done.error().message);
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu-bench: %s\n", error.what());
    return 1;
  }
}
