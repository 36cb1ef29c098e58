// The keys that wait for a look: each key is in the queue at most once, is worked on by one thread
// at a time, and comes back after a delay when its work failed (exponential per key) or asked for
// it. The semantics are those of the well-known controller queues: a key added while it is worked
// on is looked at once more afterwards. Thread-safe. Time comes from the Clock, so that tests move
// it by hand.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "base/clock.h"

namespace dsm::runtime {

struct WorkQueueOptions {
  Millis backoff_base{5};
  Millis backoff_max{1000 * 1000};
};

class WorkQueue {
 public:
  WorkQueue(Clock& clock, WorkQueueOptions options = {});

  // Due now.
  void add(const std::string& key);
  // Due after `delay`; an earlier due time that is already set stays.
  void add_after(const std::string& key, Millis delay);
  // Due after the key's backoff, which doubles with each call until forget().
  void add_backoff(const std::string& key);
  void forget(const std::string& key);

  // Waits for a key that is due and marks it as worked on; nullopt after shut_down().
  std::optional<std::string> get();
  // The work on a key from get() ended; when it was added meanwhile it is due again.
  void done(const std::string& key);
  void shut_down();

  // What the workqueue_* metrics say.
  struct Stats {
    std::size_t depth = 0;  // due and not taken
    std::uint64_t adds = 0;
    std::uint64_t retries = 0;     // add_backoff() calls
    double last_wait_s = 0;        // of the key that get() handed out last: due until taken
    double longest_running_s = 0;  // of the keys worked on now
    double unfinished_s = 0;       // their sum
  };
  Stats stats() const;

 private:
  void add_at(const std::string& key, TimePoint due);

  Clock& clock_;
  const WorkQueueOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, TimePoint> due_;               // key -> when; a key is here or not at all
  std::set<std::pair<TimePoint, std::string>> order_;  // the same, earliest first
  std::map<std::string, TimePoint> running_;           // key -> since when
  std::map<std::string, TimePoint> again_;             // added while running: due then
  std::map<std::string, int> failures_;
  bool stopped_ = false;
  std::uint64_t adds_ = 0;
  std::uint64_t retries_ = 0;
  double last_wait_s_ = 0;
};

}  // namespace dsm::runtime
