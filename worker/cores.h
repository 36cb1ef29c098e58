// How many processor cores this process may use: what its cgroup grants, not what the machine has.
// More threads than that are throttled in the middle of a step, which is many times slower.
#pragma once

#include <filesystem>

namespace dsm::worker {

// The smallest of the CPU affinity and the quotas (cgroup v1 or v2) on the way from this process's
// cgroup to the root; parts of a core are rounded down, at least 1. `root` stands for "/" in tests.
int available_cores(const std::filesystem::path& root = "/");

}  // namespace dsm::worker
