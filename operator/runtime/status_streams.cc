#include "operator/runtime/status_streams.h"

#include <algorithm>
#include <functional>

namespace dsm::runtime {
namespace {

bool same_state(const plan::LeaderStatus& a, const plan::LeaderStatus& b) {
  return a.phase == b.phase && a.reason == b.reason && a.message == b.message &&
         a.last_error == b.last_error && a.max_model_len == b.max_model_len &&
         a.kv_total == b.kv_total && a.keys == b.keys && a.told_to_sleep == b.told_to_sleep &&
         a.ranks == b.ranks && a.sick == b.sick;
}

bool same_numbers(const plan::LeaderStatus& a, const plan::LeaderStatus& b) {
  plan::LeaderStatus without_time = b;
  without_time.received = a.received;
  return a == without_time;
}

// What a line says, as a hash: a text for each of thousands of streams would take much memory. It
// ends with the time by the worker's clock, which is another one in every line and left out.
std::size_t said_in(std::string_view line) {
  return std::hash<std::string_view>()(line.substr(0, line.rfind(",\"time\":")));
}

}  // namespace

StatusStreams::StatusStreams(Clock& clock, std::uint16_t port, OnNews on_news, Logger log)
    : clock_(clock),
      port_(port),
      on_news_(std::move(on_news)),
      log_(std::move(log)),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

StatusStreams::~StatusStreams() {
  thread_.request_stop();
  thread_.join();
  std::map<Key, Stream> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(streams_);
  }
  // The handles go here, without the lock that their callbacks take.
}

void StatusStreams::set(const std::string& model, const std::vector<Leader>& leaders,
                        const std::string& token) {
  Handles ended;  // destroyed after the lock is released
  const std::lock_guard lock(mutex_);
  for (auto at = streams_.lower_bound({model, ""});
       at != streams_.end() && at->first.first == model;) {
    Stream& stream = at->second;
    const Leader leader{at->first.second, stream.ip};
    if (*stream.token == token && std::ranges::find(leaders, leader) != leaders.end()) {
      ++at;
      continue;
    }
    closed_.erase({stream.retry_at, at->first});
    ended.push_back(std::move(stream.handle));
    at = streams_.erase(at);
  }
  if (token.empty()) return;
  Token shared;
  for (const Leader& leader : leaders) {
    const auto [at, added] = streams_.try_emplace({model, leader.uid});
    if (!added) continue;
    if (!shared) shared = std::make_shared<const std::string>(token);
    at->second.ip = leader.ip;
    at->second.token = shared;
    at->second.retry_at = clock_.now();
    closed_.emplace(at->second.retry_at, at->first);
    changed_.notify_all();
  }
}

std::map<std::string, plan::LeaderStatus> StatusStreams::latest(const std::string& model) const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, plan::LeaderStatus> result;
  for (auto at = streams_.lower_bound({model, ""});
       at != streams_.end() && at->first.first == model; ++at) {
    const std::optional<plan::LeaderStatus>& status = at->second.status;
    if (status) result.emplace(at->first.second, *status);
  }
  return result;
}

std::size_t StatusStreams::connected() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(
      std::ranges::count_if(streams_, [](const auto& entry) { return entry.second.speaking; }));
}

void StatusStreams::run(const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (closed_.empty() || closed_.begin()->first > clock_.now()) {
      clock_.wait_until(changed_, lock,
                        closed_.empty() ? TimePoint::max() : closed_.begin()->first);
      continue;
    }
    const Key due = closed_.extract(closed_.begin()).value().second;
    Stream& stream = streams_.at(due);
    stream.speaking = false;
    stream.attempt = ++attempts_;
    http::Target target;
    target.host = stream.ip;
    target.port = port_;
    target.path = "/internal/status";
    target.headers["Authorization"] = "Bearer " + *stream.token;
    auto attempt = std::make_shared<const Attempt>(Attempt{due, stream.attempt});
    // The old request has ended: its handle waits for nothing but the tail of its last callback,
    // which may want the lock.
    std::unique_ptr<http::Client::Handle> old = std::move(stream.handle);
    lock.unlock();
    old.reset();
    open(std::move(attempt), std::move(target));
    lock.lock();
  }
}

void StatusStreams::open(std::shared_ptr<const Attempt> attempt, http::Target target) {
  std::unique_ptr<http::Client::Handle> handle = client_.get_lines(
      std::move(target), kIdleSeconds,
      [this, attempt](std::string_view line) { on_line(*attempt, line); },
      [this, attempt](const Status& how) { on_end(*attempt, how); });
  std::unique_lock lock(mutex_);
  if (Stream* const stream = current(*attempt)) {
    stream->handle = std::move(handle);
  } else {
    lock.unlock();  // not wanted any more: the handle goes without the lock
  }
}

StatusStreams::Stream* StatusStreams::current(const Attempt& attempt) {
  const auto at = streams_.find(attempt.key);
  return at != streams_.end() && at->second.attempt == attempt.number ? &at->second : nullptr;
}

void StatusStreams::on_line(const Attempt& attempt, std::string_view line) {
  const WallTime received = clock_.wall_now();
  const std::size_t said = said_in(line);
  {
    const std::lock_guard lock(mutex_);
    Stream* const stream = current(attempt);
    if (stream == nullptr) return;
    if (stream->speaking && stream->status && stream->said == said) {
      // Nothing new but that it is so still: what most lines of a quiet cluster say.
      stream->status->received = received;
      return;
    }
  }
  const Result<plan::LeaderStatus> status = plan::leader_status(line, received);
  if (!status) return;
  StreamNews news = StreamNews::kNumbers;
  {
    const std::lock_guard lock(mutex_);
    Stream* const stream = current(attempt);
    if (stream == nullptr) return;
    stream->said = said;
    const bool first = !stream->speaking || !stream->status;
    stream->speaking = true;
    stream->delay = Millis(0);
    const bool state = first || !same_state(*stream->status, *status);
    const bool numbers = first || !same_numbers(*stream->status, *status);
    stream->status = *status;
    if (!state && !numbers) return;
    news = state ? StreamNews::kState : StreamNews::kNumbers;
  }
  on_news_(std::string(attempt.key.first), news);
}

void StatusStreams::on_end(const Attempt& attempt, const Status& how) {
  const Key key = attempt.key;  // a listener may end this stream, and the callback with its key
  const auto& [model, uid] = key;
  bool was_speaking = false;
  {
    const std::lock_guard lock(mutex_);
    Stream* const stream = current(attempt);
    if (stream == nullptr) return;
    was_speaking = stream->speaking;
    stream->speaking = false;
    stream->delay =
        stream->delay.count() == 0 ? kFirstRetry : std::min(stream->delay * 2, kLongestRetry);
    stream->retry_at = clock_.now() + stream->delay;
    closed_.emplace(stream->retry_at, key);
    changed_.notify_all();
  }
  const bool refused = !how && how.error().kind == ErrorKind::kDenied;
  log_.debug(
      "status stream ended",
      {{"model", model}, {"pod", uid}, {"why", how ? "the worker ended it" : how.error().message}});
  if (refused) {
    on_news_(model, StreamNews::kRefused);
  } else if (was_speaking) {
    on_news_(model, StreamNews::kState);
  }
}

}  // namespace dsm::runtime
