// The keys that need a look: each at most once in the queue, never worked on by two threads at
// once, now or after a delay, and later and later when looking fails. What something has happened
// to comes before what was only put off until now (numbers, another try, a look after minutes), so
// that an edit does not stand behind a thousand of those. Thread-safe.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <queue>
#include <set>
#include <stop_token>
#include <string>
#include <utility>

#include "base/clock.h"

namespace dsm::runtime {

// Called under the queue's lock: only count.
struct QueueObserver {
  std::function<void(std::size_t depth)> depth;
  std::function<void()> added;
  std::function<void()> retried;
  std::function<void(double seconds)> waited;  // from added to taken
  std::function<void(double seconds)> worked;  // from taken to done
};

class WorkQueue {
 public:
  static constexpr Millis kFirstBackoff{5};
  static constexpr Millis kLongestBackoff{1'000'000};
  // So many keys in a row may go before one that was put off.
  static constexpr int kUrgentInARow = 10;

  explicit WorkQueue(Clock& clock, QueueObserver observer = {});

  // A key that is worked on now is taken again afterwards.
  void add(const std::string& key);
  // Of several delays of one key the earliest counts; zero is add().
  void add_after(const std::string& key, Millis delay);
  // After 5 ms, then twice as long with each call, up to 1000 s, until forget().
  void add_backoff(const std::string& key);
  void forget(const std::string& key);

  // Waits for a key; nothing when `stop` was requested. done() must follow.
  std::optional<std::string> take(const std::stop_token& stop);
  // A key that is due now, without waiting. done() must follow.
  std::optional<std::string> try_take();
  void done(const std::string& key);

  std::size_t depth() const;
  // Seconds that the keys under work have taken so far: of all together and of the longest.
  std::pair<double, double> under_work() const;

 private:
  struct Waiting {
    TimePoint since;
    bool urgent = false;
  };

  void add_locked(const std::string& key, TimePoint now, bool urgent);
  std::optional<std::string> next();
  std::optional<std::string> take_locked();
  void move_due(TimePoint now);
  void drop_delay(const std::string& key);

  Clock& clock_;
  const QueueObserver observer_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Waiting> waiting_;
  // The same, first come first; a key that became urgent still stands in routine_ and is skipped.
  std::queue<std::string> urgent_;
  std::queue<std::string> routine_;
  int urgent_in_a_row_ = 0;
  std::map<std::string, TimePoint> working_since_;
  std::map<std::string, bool> again_;                  // added while worked on: urgent or not
  std::map<std::string, TimePoint> delayed_;           // key -> when
  std::set<std::pair<TimePoint, std::string>> order_;  // the same, earliest first
  std::map<std::string, int> failures_;
};

}  // namespace dsm::runtime
