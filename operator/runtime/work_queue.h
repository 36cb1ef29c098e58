// The keys that need a look: each at most once in the queue, never worked on by two threads at
// once, now or after a delay, and later and later when looking fails. What somebody wants comes
// before what has happened, and that before what was only put off until now (numbers, another try,
// a look after minutes): an edit does not stand behind a thousand pods that start. Thread-safe.
#pragma once

#include <array>
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

enum class Urgency { kPutOff, kNews, kEdit };

class WorkQueue {
 public:
  static constexpr Millis kFirstBackoff{5};
  static constexpr Millis kLongestBackoff{1'000'000};
  // So many keys in a row may go before a less urgent one.
  static constexpr int kUrgentInARow = 10;

  explicit WorkQueue(Clock& clock, QueueObserver observer = {});

  // A key that is worked on now is taken again afterwards.
  void add(const std::string& key, Urgency urgency = Urgency::kNews);
  // Of several delays of one key the earliest counts, and the highest urgency; zero is add().
  void add_after(const std::string& key, Millis delay, Urgency urgency = Urgency::kPutOff);
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
    Urgency urgency = Urgency::kPutOff;
  };
  // The keys of one urgency, first come first; one that became more urgent still stands here and
  // is skipped.
  struct Line {
    std::queue<std::string> keys;
    int passed = 0;  // more urgent keys that were taken while some stood here
  };

  void add_locked(const std::string& key, TimePoint now, Urgency urgency);
  Line& line(Urgency urgency) { return lines_[static_cast<std::size_t>(urgency)]; }
  void drop_moved();
  std::optional<std::string> next();
  std::optional<std::string> take_locked();
  void move_due(TimePoint now);
  void drop_delay(const std::string& key);

  Clock& clock_;
  const QueueObserver observer_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Waiting> waiting_;
  std::array<Line, 3> lines_;  // the same, by urgency
  std::map<std::string, TimePoint> working_since_;
  std::map<std::string, Urgency> again_;  // added while worked on
  struct Delayed {
    TimePoint when;
    Urgency urgency = Urgency::kPutOff;  // then
  };
  std::map<std::string, Delayed> delayed_;
  std::set<std::pair<TimePoint, std::string>> order_;  // the same, earliest first
  std::map<std::string, int> failures_;
};

}  // namespace dsm::runtime
