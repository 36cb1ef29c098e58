// A thread that asks the API server, one question after the other, and a short queue before it.
// Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace dsm::metrics_api {

class Asker {
 public:
  // Questions that wait.
  static constexpr std::size_t kMost = 64;

  // Asks and hands the answer on; may block.
  using Question = std::function<void()>;

  Asker() = default;
  ~Asker() { stop(); }
  Asker(const Asker&) = delete;
  Asker& operator=(const Asker&) = delete;

  void start();
  // Waits for the question that is being asked; those that wait are dropped.
  void stop();
  // False: too many wait, or it does not run.
  bool add(Question question);

 private:
  void run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool running_ = false;          // guarded by mutex_
  std::deque<Question> waiting_;  // guarded by mutex_
  std::jthread thread_;           // last: it uses everything above
};

}  // namespace dsm::metrics_api
