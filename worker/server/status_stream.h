// The worker's status as lines to anybody who listens: one when something changed, at most every
// 200 ms, and at least one every 2 s. One thread for all listeners; it looks at the worker only
// while there are some. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/http/server.h"
#include "worker/server/worker_status.h"

namespace dsm::server {

class StatusStream {
 public:
  static constexpr Millis kShortest{200};
  static constexpr Millis kLongest{2000};

  // `look` gives the view of now (its tokens_per_second is filled in here). `clock` outlives this.
  StatusStream(std::function<WorkerView()> look, Identity identity, Clock& clock);
  ~StatusStream();  // ends all streams
  StatusStream(const StatusStream&) = delete;
  StatusStream& operator=(const StatusStream&) = delete;

  // Starts the answer and sends the first line at once.
  void add(std::shared_ptr<http::Exchange> listener);

 private:
  struct Listener {
    std::shared_ptr<http::Exchange> exchange;
    std::string last;
    TimePoint sent_at;
  };
  void run();
  double rate(std::uint64_t generated, TimePoint now);
  bool serve(Listener& listener, const std::string& status, TimePoint now);

  const std::function<WorkerView()> look_;
  const Identity identity_;
  Clock& clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<http::Exchange>> added_;
  bool stopping_ = false;
  std::deque<std::pair<TimePoint, std::uint64_t>> generated_;  // thread_ only
  std::thread thread_;                                         // last: it uses all of the above
};

}  // namespace dsm::server
