#include "worker/device/sum_ways.h"

#include <algorithm>

namespace dsm::device {
namespace {

// What starting the operators between two sums one by one takes the host at least, in microseconds:
// about eight at 2 us each and a call of the library. An estimate. As long as kernels take less,
// a step that is recorded saves it; where they take longer, as with many rows, it saves nothing,
// and sums are so large that the library's may be quicker by more.
constexpr float kSpared = 20;

const char* name_of(SumWay way) {
  switch (way) {
    case SumWay::kOneShot:
      return "one shot";
    case SumWay::kTwoShot:
      return "two shots";
    case SumWay::kLibrary:
      break;
  }
  return "library";
}

std::size_t at(SumWay way) {
  return static_cast<std::size_t>(way);  // as in kSumWays
}

// The next larger size, or else the largest.
std::size_t size_of(std::int64_t count) {
  const auto size = std::ranges::lower_bound(kSumSizes, count);
  return static_cast<std::size_t>(std::min(size, kSumSizes.end() - 1) - kSumSizes.begin());
}

}  // namespace

SumWays::SumWays(std::span<const float> times) {
  std::array<float, kTimes> slowest{};
  for (std::size_t i = 0; i < times.size(); ++i) {
    float& time = slowest[i % kTimes];
    time = std::max(time, times[i]);
  }
  for (std::size_t s = 0; s < ways_.size(); ++s) {
    const auto* begin = slowest.data() + s * kSumWays.size();
    ways_[s] = kSumWays[static_cast<std::size_t>(std::min_element(begin, begin + kSumWays.size()) -
                                                 begin)];
    const bool one = begin[at(SumWay::kOneShot)] <= begin[at(SumWay::kTwoShot)];
    const SumWay own = one ? SumWay::kOneShot : SumWay::kTwoShot;
    recorded_[s] = begin[at(own)] <= begin[at(SumWay::kLibrary)] + kSpared ? own : SumWay::kLibrary;
  }
}

SumWay SumWays::of(std::int64_t count) const {
  return ways_[size_of(count)];
}

SumWay SumWays::recorded(std::int64_t count) const {
  return recorded_[size_of(count)];
}

// "one shot up to 16384 values, two shots up to 262144, then library"
std::string SumWays::text() const {
  std::string all;
  for (std::size_t s = 0; s < ways_.size(); ++s) {
    if (s + 1 < ways_.size() && ways_[s + 1] == ways_[s]) continue;
    if (!all.empty()) all += ", ";
    if (s + 1 == ways_.size()) return all + (all.empty() ? "" : "then ") + name_of(ways_[s]);
    all += name_of(ways_[s]) + std::string(" up to ") + std::to_string(kSumSizes[s]);
    if (all.find("values") == std::string::npos) all += " values";
  }
  return all;
}

}  // namespace dsm::device
