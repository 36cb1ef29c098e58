#include "worker/cores.h"

#include <sched.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <thread>

#include "worker/cgroup.h"

namespace dsm::worker {
namespace {

namespace fs = std::filesystem;

double quota(const std::string& limit, const std::string& period) {
  try {
    const double allowed = std::stod(limit);
    const double of = std::stod(period);
    return allowed > 0 && of > 0 ? allowed / of : kUnlimited;
  } catch (const std::exception&) {
    return kUnlimited;  // "max", or no such file
  }
}

// cgroup v2: "200000 100000", or "max 100000".
double quota_v2(const fs::path& dir) {
  std::istringstream words(first_line(dir / "cpu.max"));
  std::string limit;
  std::string period;
  words >> limit >> period;
  return quota(limit, period);
}

// cgroup v1: two files; -1 is no limit.
double quota_v1(const fs::path& dir) {
  return quota(first_line(dir / "cpu.cfs_quota_us"), first_line(dir / "cpu.cfs_period_us"));
}

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int available_cores(const fs::path& root) {
  const double granted = tightest({.controller = "cpu",
                                   .v1_mounts = {"cpu", "cpu,cpuacct"},
                                   .read_v2 = quota_v2,
                                   .read_v1 = quota_v1},
                                  root);
  const double cores = std::min(static_cast<double>(affinity_cores()), granted);
  return std::max(1, static_cast<int>(cores));
}

}  // namespace dsm::worker
