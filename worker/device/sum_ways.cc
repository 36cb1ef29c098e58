#include "worker/device/sum_ways.h"

#include <algorithm>

namespace dsm::device {
namespace {

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
  }
}

// That of the next larger size, or else the largest.
SumWay SumWays::of(std::int64_t count) const {
  const auto size = std::ranges::lower_bound(kSumSizes, count);
  return size == kSumSizes.end() ? ways_.back()
                                 : ways_[static_cast<std::size_t>(size - kSumSizes.begin())];
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
