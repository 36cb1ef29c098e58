#include "worker/cgroup.h"

#include <algorithm>
#include <fstream>

namespace dsm::worker {
namespace {

namespace fs = std::filesystem;

// The tightest limit of `group` (as "/a/b") and its parents below `mount`. In a container the path
// may be the host's, which does not exist here: then what is mounted is the container's own group.
double tightest_below(const fs::path& mount, const std::string& group,
                      double (*read)(const fs::path&)) {
  double found = read(mount);
  fs::path dir = mount;
  for (const auto& part : fs::path(group).relative_path()) {
    dir /= part;
    found = std::min(found, read(dir));
  }
  return found;
}

}  // namespace

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

double tightest(const CgroupLimit& limit, const fs::path& root) {
  std::ifstream groups(root / "proc/self/cgroup");
  const fs::path mounts = root / "sys/fs/cgroup";
  double found = kUnlimited;
  std::string line;
  while (std::getline(groups, line)) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") {
      found = std::min(found, tightest_below(mounts, group, limit.read_v2));
      found = std::min(found, tightest_below(mounts / "unified", group, limit.read_v2));
    } else if (controllers.find("," + std::string(limit.controller) + ",") != std::string::npos) {
      for (const char* mount : limit.v1_mounts) {
        found = std::min(found, tightest_below(mounts / mount, group, limit.read_v1));
      }
    }
  }
  return found;
}

}  // namespace dsm::worker
