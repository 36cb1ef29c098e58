// Tells leaders one thing (leader_messages.h): a request to the internal port of each leader that
// reports something else, again and again until it reports what it was told. Callbacks come on the
// HTTP client's thread. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/http/client.h"
#include "base/log.h"
#include "operator/runtime/leader_messages.h"
#include "operator/runtime/status_streams.h"

namespace dsm::runtime {

class LeaderPushes {
 public:
  // Called when a leader of the model was not reached: tell() again after the delay.
  using Again = std::function<void(const std::string& model, Millis delay)>;

  static constexpr Millis kFirstRetry{250};
  static constexpr Millis kLongestRetry{10'000};
  static constexpr int kTimeoutSeconds = 5;

  LeaderPushes(Clock& clock, std::uint16_t port, Again again, Logger log);
  ~LeaderPushes();
  LeaderPushes(const LeaderPushes&) = delete;
  LeaderPushes& operator=(const LeaderPushes&) = delete;

  // `reported`: the newest status line of each leader, by the uid of its pod. A leader that has
  // said nothing yet is told when it does.
  void tell(const std::string& model, const std::vector<Leader>& leaders,
            const std::map<std::string, plan::LeaderStatus>& reported, const std::string& token,
            const LeaderMessage& message);
  // The model is gone.
  void forget(const std::string& model);

 private:
  struct Push {
    std::string model;
    std::string digest;         // of the message that was sent last
    std::uint64_t attempt = 0;  // tells the answer of an older one apart
    bool open = false;          // its answer is awaited
    WallTime answered;          // a status line that is older says nothing about it
    TimePoint retry_at{};
    Millis delay{0};
    std::unique_ptr<http::Client::Handle> handle;
  };

  void send(const Leader& leader, const std::string& token, const LeaderMessage& message,
            std::uint64_t attempt);
  void on_answer(const std::string& uid, std::uint64_t attempt, const std::string& about,
                 const Result<http::Response>& how);

  Clock& clock_;
  const std::uint16_t port_;
  const Again again_;
  const Logger log_;
  std::mutex mutex_;
  std::map<std::string, Push> pushes_;  // by pod uid; guarded by mutex_
  std::uint64_t attempts_ = 0;
  http::Client client_;
};

}  // namespace dsm::runtime
