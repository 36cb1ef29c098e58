// An engine that is told to sleep takes no requests, ends those it has and lets the runner's ranks
// give their devices' memory back, until it is told to wake. Plain values.
#pragma once

#include "base/result.h"

namespace dsm::engine {

// What becomes of requests that an engine has when it is told to sleep.
enum class SleepMode {
  kWait,   // they are finished first
  kAbort,  // they end with asleep(), at the latest with the step under way
};

// Why a request is refused or ended; nobody knows until when.
inline Error asleep() {
  constexpr int kTryAgainSeconds = 5;
  return {.kind = ErrorKind::kTransient,
          .message = "the model sleeps: it takes requests again when it has been woken",
          .retry_after_s = kTryAgainSeconds,
          .reason = "asleep"};
}

}  // namespace dsm::engine
