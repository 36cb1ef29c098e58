// One watch of one operator: the list-watch machine of kube/ with the events of the simulated API
// server as the bytes of its streams, late, twice or not at all as the faults say. For tests;
// single-threaded.
#pragma once

#include <deque>
#include <optional>
#include <string>

#include "kube/watch.h"
#include "operator/faults/api_server.h"
#include "operator/faults/fault_source.h"
#include "operator/runtime/feed.h"

namespace dsm::faults {

class WatchLine {
 public:
  // All must outlive it.
  WatchLine(ApiServer& server, Clock& clock, FaultSource& faults, runtime::Feed to);

  // Does what is due now. Without a connection nothing comes, and lists fail.
  void tick(bool connected);

 private:
  void feed(const kube::WatchInput& input);
  bool list(bool connected);
  void open();
  void read();
  bool deliver();

  ApiServer& server_;
  Clock& clock_;
  FaultSource& faults_;
  const runtime::Feed to_;
  kube::WatchState state_;
  kube::WatchAction action_;
  TimePoint due_{};                                 // of a wait, or of a list that was read
  std::optional<Result<kube::HttpResponse>> list_;  // on its way
  std::size_t next_ = 0;                            // event that is not on its way yet
  struct Coming {
    std::string line;
    TimePoint due;
    bool dropped = false;
  };
  std::deque<Coming> coming_;
};

}  // namespace dsm::faults
