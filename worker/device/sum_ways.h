// How ranks on GPUs add up what each has: by kernels of our own, which write into each other's
// memory (kernels/cuda/all_reduce.h), or by a library. Which is quickest at how many values is
// measured where they run; what follows from that is a value.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace dsm::device {

// What is wanted: own kernels where they are quicker, the library alone, own kernels alone.
enum class AllReduce : std::uint8_t { kAuto, kNccl, kPeer };

enum class SumWay : std::uint8_t { kOneShot, kTwoShot, kLibrary };
inline constexpr std::array<SumWay, 3> kSumWays{SumWay::kOneShot, SumWay::kTwoShot,
                                                SumWay::kLibrary};

// Numbers of values at which is measured: from a token's of a small model to those of a prompt,
// where the links' speed alone counts.
inline constexpr std::array<std::int64_t, 5> kSumSizes{4096, 16384, 65536, 262144, 1048576};

class SumWays {
 public:
  // What a rank has measured: [size][way].
  static constexpr std::size_t kTimes = kSumSizes.size() * kSumWays.size();

  // `times` of all ranks, in microseconds, one rank after the other; the same on all ranks, so that
  // they choose alike. A way takes as long as it does the slowest rank; infinity: it is not to be
  // taken.
  explicit SumWays(std::span<const float> times);

  SumWay of(std::int64_t count) const;
  // In a step that may be recorded, where the library cannot be: of our own the quicker one. The
  // library: it is so much quicker that a step is better not recorded.
  SumWay recorded(std::int64_t count) const;
  // For the log.
  std::string text() const;

 private:
  using Ways = std::array<SumWay, kSumSizes.size()>;
  Ways ways_{};
  Ways recorded_{};
};

}  // namespace dsm::device
