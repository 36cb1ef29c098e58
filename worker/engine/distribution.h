// Numbers counted by their size, as a value: what a histogram among the metrics is raised to.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace dsm::engine {

// `kBounds` are the buckets' upper ends, which are in them, in rising order; one bucket more takes
// what is larger. The buckets are vLLM's, so that dashboards made for it read them.
template <const auto& kBounds>
struct Distribution {
  std::array<std::uint64_t, kBounds.size() + 1> counts = {};
  double sum = 0;

  void add(double value) {
    const auto bucket = std::ranges::lower_bound(kBounds, value) - kBounds.begin();
    ++counts[static_cast<std::size_t>(bucket)];
    sum += value;
  }
  void add(const Distribution& other) {
    std::ranges::transform(counts, other.counts, counts.begin(), std::plus());
    sum += other.sum;
  }
  bool operator==(const Distribution&) const = default;
};

// Tokens of a step.
inline constexpr std::array kStepTokens = {1.0,   8.0,    16.0,   32.0,   64.0,   128.0,  256.0,
                                           512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0};
// Seconds that a block of the KV cache is kept.
inline constexpr std::array kBlockSeconds = {.001, .002, .005,  .01,   .02,   .05,    .1,
                                             .2,   .5,   1.0,   2.0,   5.0,   10.0,   20.0,
                                             30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0};

}  // namespace dsm::engine
