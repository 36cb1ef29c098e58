// How fast the engine takes requests out of its queue, from its counters over the last while; to
// tell a refused client when to come back. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>

#include "base/clock.h"

namespace dsm::engine {

class StartRate {
 public:
  static constexpr Seconds kWindow{30};
  static constexpr Seconds kGrain{1};  // between two of the counts that are kept
  static constexpr int kLongest = 60;  // seconds; also when nothing has started in the window

  // Requests and prompt tokens that have been started since the beginning. Times do not go back.
  void observe(TimePoint now, std::uint64_t requests, std::uint64_t tokens);
  // Seconds, from 1 to kLongest, until so many requests will have been started.
  int seconds_for_requests(std::uint64_t requests) const;
  int seconds_for_tokens(std::uint64_t tokens) const;

 private:
  struct Count {
    TimePoint at;
    std::uint64_t requests = 0;
    std::uint64_t tokens = 0;
  };
  int seconds_for(std::uint64_t wanted, std::uint64_t Count::* field) const;

  std::deque<Count> counts_;  // oldest first
  Count latest_;
};

}  // namespace dsm::engine
