// How much memory this process may take: what its cgroup grants. Beyond it the kernel ends it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace dsm::worker {

// In bytes; nullopt: no limit is set. `root` stands for "/" in tests.
std::optional<std::int64_t> memory_limit(const std::filesystem::path& root = "/");

}  // namespace dsm::worker
