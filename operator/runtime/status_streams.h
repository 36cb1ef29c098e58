// The status streams of all leaders: one long-lived request per leader pod, begun again when it
// breaks, its newest line kept. Callbacks come on the HTTP client's thread or on the one thread
// that (re)connects. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/http/client.h"
#include "base/log.h"
#include "operator/plan/observed.h"

namespace dsm::runtime {

struct Leader {
  std::string uid;  // of the pod
  std::string ip;
  bool operator==(const Leader&) const = default;
};

enum class StreamNews {
  kNumbers,  // queue, rates, bytes: can wait a moment
  kState,    // phase or words changed, or the stream began or broke
  kRefused,  // the worker did not accept the token
};

class StatusStreams {
 public:
  using OnNews = std::function<void(const std::string& model, StreamNews news)>;

  static constexpr Millis kFirstRetry{500};
  static constexpr Millis kLongestRetry{5'000};
  static constexpr int kIdleSeconds = 10;  // a worker sends at least every 2 s
  // Lines wait so long for each other: nobody acts on one sooner than 100 ms after it.
  static constexpr Millis kGather{10};

  StatusStreams(Clock& clock, std::uint16_t port, OnNews on_news, Logger log);
  ~StatusStreams();
  StatusStreams(const StatusStreams&) = delete;
  StatusStreams& operator=(const StatusStreams&) = delete;

  // The model's leaders from now on. A leader that stays keeps its stream; an empty list ends all.
  // No stream is begun without a token.
  void set(const std::string& model, const std::vector<Leader>& leaders, const std::string& token);
  // The newest line of each of the model's leaders, by pod uid.
  std::map<std::string, plan::LeaderStatus> latest(const std::string& model) const;
  std::size_t connected() const;

 private:
  // Model and pod uid: the streams of one model stand together.
  using Key = std::pair<std::string, std::string>;
  using Token = std::shared_ptr<const std::string>;  // one text for all streams of a model
  struct Stream {
    std::string ip;
    Token token;
    std::uint64_t attempt = 0;  // tells the callbacks of an older attempt apart
    bool speaking = false;      // it has brought a line
    Millis delay{0};
    TimePoint retry_at{};
    std::unique_ptr<http::Client::Handle> handle;
    std::size_t said = 0;  // hash of the newest line without its time
    std::optional<plan::LeaderStatus> status;
  };
  using Handles = std::vector<std::unique_ptr<http::Client::Handle>>;
  // What the callbacks of one request know.
  struct Attempt {
    Key key;
    std::uint64_t number = 0;
  };

  void run(const std::stop_token& stop);
  void open(std::shared_ptr<const Attempt> attempt, http::Target target);
  void on_line(const Attempt& attempt, std::string_view line);
  void on_end(const Attempt& attempt, const Status& how);
  // The stream while `attempt` is its newest, else null; with the lock.
  Stream* current(const Attempt& attempt);

  Clock& clock_;
  const std::uint16_t port_;
  const OnNews on_news_;
  const Logger log_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, Stream> streams_;               // guarded by mutex_, like the next
  std::set<std::pair<TimePoint, Key>> closed_;  // streams without a request, by retry_at
  std::uint64_t attempts_ = 0;
  http::Client client_{kGather};
  std::jthread thread_;  // last: it uses everything above
};

}  // namespace dsm::runtime
