// Keeps one status stream open to each leader pod and remembers its newest line. A stream that ends
// is opened again after a pause that grows while the leader does not answer. Thread-safe; on_change
// is called on the HTTP client's thread, or on a caller's, without a lock held.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/client.h"
#include "operator/plan/observed.h"

namespace dsm::runtime {

// A leader pod that can be reached.
struct LeaderTarget {
  std::string pod_uid;
  std::string address;  // pod IP
  std::string token;    // of the model's internal port

  bool operator==(const LeaderTarget&) const = default;
};

class LeaderStreams {
 public:
  // `on_change(key)`: a leader of that model said something new.
  LeaderStreams(http::Client& client, Clock& clock, std::uint16_t port,
                std::function<void(const std::string& key)> on_change);
  ~LeaderStreams();
  LeaderStreams(const LeaderStreams&) = delete;
  LeaderStreams& operator=(const LeaderStreams&) = delete;

  // The leaders of one model from now on: streams to others of that key end, new ones are opened.
  // An empty list forgets the model.
  void watch(const std::string& key, std::vector<LeaderTarget> targets);
  // Opens the streams whose pause is over; to be called about once a second.
  void reopen_due();
  // The newest line of each leader of the model, by pod uid.
  std::map<std::string, plan::LeaderStatus> statuses(const std::string& key) const;
  std::size_t open_streams() const;

 private:
  struct Stream;
  void open(const std::shared_ptr<Stream>& stream);

  http::Client& client_;
  Clock& clock_;
  const std::uint16_t port_;
  const std::function<void(const std::string& key)> on_change_;
  mutable std::mutex mutex_;
  std::map<std::string, std::map<std::string, std::shared_ptr<Stream>>>
      streams_;  // key -> uid -> stream
};

}  // namespace dsm::runtime
