// Limits that the kernel puts on this process by its cgroup and the parents of it (v1 or v2).
#pragma once

#include <filesystem>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

namespace dsm::worker {

inline constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// Empty when there is no such file.
std::string first_line(const std::filesystem::path& file);

// How the limit of one controller is read from a cgroup's folder; kUnlimited: there is none.
struct CgroupLimit {
  std::string_view controller;                   // v1: as /proc/self/cgroup calls it
  std::initializer_list<const char*> v1_mounts;  // below /sys/fs/cgroup
  double (*read_v2)(const std::filesystem::path& dir);
  double (*read_v1)(const std::filesystem::path& dir);
};

// The tightest on the way from this process's cgroup to the root. `root` stands for "/" in tests.
double tightest(const CgroupLimit& limit, const std::filesystem::path& root);

}  // namespace dsm::worker
