#include "worker/engine/start_rate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace dsm::engine {

void StartRate::observe(TimePoint now, std::uint64_t requests, std::uint64_t tokens) {
  latest_ = {.at = now, .requests = requests, .tokens = tokens};
  if (counts_.empty() || now - counts_.back().at >= kGrain) counts_.push_back(latest_);
  // The oldest one is kept until the next has the window's age.
  while (counts_.size() > 1 && now - counts_[1].at >= kWindow) counts_.pop_front();
}

int StartRate::seconds_for_requests(std::uint64_t requests) const {
  return seconds_for(requests, &Count::requests);
}

int StartRate::seconds_for_tokens(std::uint64_t tokens) const {
  return seconds_for(tokens, &Count::tokens);
}

int StartRate::seconds_for(std::uint64_t wanted, std::uint64_t Count::* field) const {
  if (counts_.empty()) return kLongest;
  const Count& oldest = counts_.front();
  const std::chrono::duration<double> span = latest_.at - oldest.at;
  const auto started = static_cast<double>(latest_.*field - oldest.*field);
  if (started <= 0) return kLongest;
  const double seconds = static_cast<double>(wanted) * span.count() / started;
  return std::clamp(static_cast<int>(std::ceil(std::min<double>(seconds, kLongest))), 1, kLongest);
}

}  // namespace dsm::engine
