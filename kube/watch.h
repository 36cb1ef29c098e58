// List and watch one kind of object, as a pure step machine: it says which request to send next and
// turns answers, bytes and failures into events. It does no I/O and keeps no time of its own; the
// loop that feeds it is in watcher.h.
//
//   list page by page ──> watch from the list's resource version ──> watch again, and again
//        ^                     │ 410, ERROR, a line that cannot be read
//        └─────────────────────┘
//
// Guarantees to the reader of the events:
//   - kInit, kInitApply..., kInitDone is one consistent list. A list that fails in the middle never
//     reaches kInitDone: a new kInit begins, and what came since the last one is to be dropped.
//   - After kInitDone, kApply and kDelete come in the server's order, none left out: whenever one
//     could have been missed, the machine lists again.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "kube/request.h"
#include "kube/transport.h"

namespace dsm::kube {

struct WatchEvent {
  enum class Kind { kInit, kInitApply, kInitDone, kApply, kDelete };
  Kind kind = Kind::kInit;
  // With apiVersion and kind. Null for kInit; for kInitDone the list's metadata alone:
  // {"metadata": {"resourceVersion": "10"}}.
  nlohmann::json object;
};

// A page is for a moment a tree of JSON values, some 30 KB for a pod, and the watches begin with
// their lists all at once.
inline constexpr int kWatchPageSize = 100;

// Delays grow by two from the first to the longest and are stretched by up to their own length, so
// that many clients do not come back in step.
inline constexpr Millis kWatchFirstDelay{800};
inline constexpr Millis kWatchLongestDelay{30'000};
// The delay starts anew after so long without a failure.
inline constexpr Millis kWatchHealthy{120'000};
// A watch that ended before this without a byte counts as a failure.
inline constexpr Millis kWatchVeryShort{1'000};
inline constexpr int kWatchShortestTimeoutS = 300;  // the server's limit is drawn from 5-10 minutes

struct WatchState {
  enum class Phase { kList, kListing, kWatch, kWatching };
  Phase phase = Phase::kList;
  std::string continue_token;
  int page_size = kWatchPageSize;
  std::string resource_version;  // everything up to here has been seen
  std::string partial;           // the beginning of a line whose end has not come
  bool any_bytes = false;        // in this watch
  TimePoint watch_began{};
  Millis delay{0};  // of the last failure
  TimePoint last_failure{};
};

namespace watch_input {
struct Begin {};  // at the start and when a wait is over
struct Listed {
  Result<HttpResponse> answer;
};
struct Bytes {
  std::string_view text;
};
struct Ended {
  Result<HttpResponse> answer;
};
}  // namespace watch_input
using WatchInput =
    std::variant<watch_input::Begin, watch_input::Listed, watch_input::Bytes, watch_input::Ended>;

struct WatchAction {
  enum class Kind {
    kList,   // send the list request, then Listed
    kWatch,  // open the stream, then Bytes..., Ended
    kRead,   // go on with the stream
    kWait,   // give up the stream if there is one, wait, then Begin
  };
  Kind kind = Kind::kRead;
  ListOptions list;
  WatchOptions watch;
  Millis delay{0};
  std::string error;  // kWait: why, for the log; empty when nothing is wrong
};

struct WatchStep {
  WatchState state;
  std::vector<WatchEvent> events;
  WatchAction action;
};

// `random` is in [0, 1). Selectors are the caller's to add to the action's options.
WatchStep step(WatchState state, const WatchInput& input, TimePoint now, double random);

}  // namespace dsm::kube
