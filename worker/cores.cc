#include "worker/cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <thread>

namespace dsm::worker {
namespace {

namespace fs = std::filesystem;

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

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

// The tightest quota of `group` (as "/a/b") and its parents below `mount`. In a container the path
// may be the host's, which does not exist here: then what is mounted is the container's own group.
double tightest(const fs::path& mount, const std::string& group, double (*read)(const fs::path&)) {
  double cores = read(mount);
  fs::path dir = mount;
  for (const auto& part : fs::path(group).relative_path()) {
    dir /= part;
    cores = std::min(cores, read(dir));
  }
  return cores;
}

double cgroup_quota(const fs::path& root) {
  std::ifstream groups(root / "proc/self/cgroup");
  double cores = kUnlimited;
  std::string line;
  while (std::getline(groups, line)) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    const fs::path mounts = root / "sys/fs/cgroup";
    if (controllers == ",,") {
      cores = std::min(cores, tightest(mounts, group, quota_v2));
      cores = std::min(cores, tightest(mounts / "unified", group, quota_v2));
    } else if (controllers.find(",cpu,") != std::string::npos) {
      for (const char* mount : {"cpu", "cpu,cpuacct"}) {
        cores = std::min(cores, tightest(mounts / mount, group, quota_v1));
      }
    }
  }
  return cores;
}

int affinity_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int available_cores(const fs::path& root) {
  const double cores = std::min(static_cast<double>(affinity_cores()), cgroup_quota(root));
  return std::max(1, static_cast<int>(cores));
}

}  // namespace dsm::worker
