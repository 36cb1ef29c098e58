#include "operator/runtime/leader_streams.h"

#include <algorithm>
#include <set>

namespace dsm::runtime {
namespace {

// The worker writes a line at least every 2 s; five of them missed and the stream is dead.
constexpr int kIdleTimeoutS = 10;
constexpr Millis kFirstPause{500};
constexpr Millis kLongestPause{10'000};

}  // namespace

struct LeaderStreams::Stream {
  Stream(std::string model_key, LeaderTarget leader)
      : key(std::move(model_key)), target(std::move(leader)) {}

  const std::string key;
  const LeaderTarget target;

  // Ends the request for good. Waits for a callback that runs, so no lock that one takes may be
  // held.
  void end() {
    std::lock_guard lock(handle_mutex);
    ended = true;
    handle.reset();
  }

  std::mutex handle_mutex;  // not taken by callbacks
  std::unique_ptr<http::Client::Handle> handle;
  bool ended = false;

  std::mutex mutex;
  bool open = false;
  Millis pause = kFirstPause;
  TimePoint next_try{};
  std::optional<plan::LeaderStatus> status;
};

LeaderStreams::LeaderStreams(http::Client& client, Clock& clock, std::uint16_t port,
                             std::function<void(const std::string& key)> on_change)
    : client_(client), clock_(clock), port_(port), on_change_(std::move(on_change)) {}

LeaderStreams::~LeaderStreams() {
  decltype(streams_) ending;
  {
    std::lock_guard lock(mutex_);
    ending.swap(streams_);
  }
  for (auto& [key, model] : ending) {
    for (auto& [uid, stream] : model) stream->end();
  }
}

void LeaderStreams::watch(const std::string& key, std::vector<LeaderTarget> targets) {
  std::vector<std::shared_ptr<Stream>> opening;
  std::vector<std::shared_ptr<Stream>> ending;
  {
    std::lock_guard lock(mutex_);
    auto& model = streams_[key];
    std::set<std::string> wanted;
    for (const auto& target : targets) wanted.insert(target.pod_uid);
    for (auto it = model.begin(); it != model.end();) {
      if (wanted.contains(it->first)) {
        ++it;
        continue;
      }
      ending.push_back(it->second);
      it = model.erase(it);
    }
    for (auto& target : targets) {
      auto& stream = model[target.pod_uid];
      if (stream && stream->target == target) continue;
      if (stream) ending.push_back(stream);
      stream = std::make_shared<Stream>(key, std::move(target));
      opening.push_back(stream);
    }
    if (model.empty()) streams_.erase(key);
  }
  // Outside the lock: a handle waits for its running callback, and callbacks may ask for statuses.
  for (auto& stream : ending) stream->end();
  for (auto& stream : opening) open(stream);
}

void LeaderStreams::open(const std::shared_ptr<Stream>& stream) {
  std::lock_guard handle_lock(stream->handle_mutex);
  if (stream->ended) return;
  {
    std::lock_guard lock(stream->mutex);
    stream->open = true;
  }
  const http::Target target{.host = stream->target.address,
                            .port = port_,
                            .path = "/internal/status",
                            .headers = {{"Authorization", "Bearer " + stream->target.token}}};
  // The handle is part of the stream, so callbacks hold a plain pointer: a handle that is destroyed
  // calls no more.
  Stream* raw = stream.get();
  stream->handle = client_.get_lines(
      target, kIdleTimeoutS,
      [this, raw](std::string_view line) {
        const auto status = plan::leader_status(line, clock_.wall_now());
        if (!status) return;
        {
          std::lock_guard lock(raw->mutex);
          raw->pause = kFirstPause;
          raw->status = *status;
        }
        on_change_(raw->key);
      },
      [this, raw](const Status&) {
        std::lock_guard lock(raw->mutex);
        raw->open = false;
        raw->next_try = clock_.now() + raw->pause;
        raw->pause = std::min(raw->pause * 2, kLongestPause);
      });
}

void LeaderStreams::reopen_due() {
  std::vector<std::shared_ptr<Stream>> due;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [key, model] : streams_) {
      for (const auto& [uid, stream] : model) {
        std::lock_guard stream_lock(stream->mutex);
        if (!stream->open && stream->next_try <= clock_.now()) due.push_back(stream);
      }
    }
  }
  for (const auto& stream : due) open(stream);
}

std::map<std::string, plan::LeaderStatus> LeaderStreams::statuses(const std::string& key) const {
  std::map<std::string, plan::LeaderStatus> out;
  std::lock_guard lock(mutex_);
  const auto model = streams_.find(key);
  if (model == streams_.end()) return out;
  for (const auto& [uid, stream] : model->second) {
    std::lock_guard stream_lock(stream->mutex);
    if (stream->status) out.emplace(uid, *stream->status);
  }
  return out;
}

std::size_t LeaderStreams::open_streams() const {
  std::size_t count = 0;
  std::lock_guard lock(mutex_);
  for (const auto& [key, model] : streams_) {
    for (const auto& [uid, stream] : model) {
      std::lock_guard stream_lock(stream->mutex);
      if (stream->open) ++count;
    }
  }
  return count;
}

}  // namespace dsm::runtime
