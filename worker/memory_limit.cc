#include "worker/memory_limit.h"

#include <charconv>

#include "worker/cgroup.h"

namespace dsm::worker {
namespace {

namespace fs = std::filesystem;

// Linux writes a number near 2^63 where v1 has no limit.
constexpr double kNoMemoryIsSoLarge = 1LL << 60;

double bytes_in(const fs::path& file) {
  const std::string line = first_line(file);
  std::int64_t bytes = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), bytes);
  const bool number = error == std::errc() && end == line.data() + line.size();
  return number && static_cast<double>(bytes) < kNoMemoryIsSoLarge ? static_cast<double>(bytes)
                                                                   : kUnlimited;
}

double read_v2(const fs::path& dir) {
  return bytes_in(dir / "memory.max");  // or "max"
}
double read_v1(const fs::path& dir) {
  return bytes_in(dir / "memory.limit_in_bytes");
}

}  // namespace

std::optional<std::int64_t> memory_limit(const fs::path& root) {
  const double bytes = tightest(
      {.controller = "memory", .v1_mounts = {"memory"}, .read_v2 = read_v2, .read_v1 = read_v1},
      root);
  if (bytes == kUnlimited) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

}  // namespace dsm::worker
