#include "operator/runtime/leader_pushes.h"

#include <algorithm>

namespace dsm::runtime {

LeaderPushes::LeaderPushes(Clock& clock, std::uint16_t port, Again again, Logger log)
    : clock_(clock), port_(port), again_(std::move(again)), log_(std::move(log)) {}

LeaderPushes::~LeaderPushes() {
  std::map<std::string, Push> ended;
  {
    const std::lock_guard lock(mutex_);
    ended.swap(pushes_);
  }
  // The handles go here, without the lock that their callbacks take.
}

void LeaderPushes::tell(const std::string& model, const std::vector<Leader>& leaders,
                        const std::map<std::string, plan::LeaderStatus>& reported,
                        const std::string& token, const LeaderMessage& message) {
  std::vector<Push> gone;  // destroyed without the lock
  std::vector<std::pair<Leader, std::uint64_t>> due;
  {
    const std::lock_guard lock(mutex_);
    for (auto at = pushes_.begin(); at != pushes_.end();) {
      const bool stays = at->second.model != model ||
                         std::ranges::find(leaders, at->first, &Leader::uid) != leaders.end();
      if (stays) {
        ++at;
        continue;
      }
      gone.push_back(std::move(at->second));
      at = pushes_.erase(at);
    }
    for (const Leader& leader : leaders) {
      const auto status = reported.find(leader.uid);
      if (status == reported.end() || !message.is_news(status->second)) continue;
      Push& push = pushes_[leader.uid];
      const bool same = push.digest == message.digest;
      if (same &&
          (push.open || status->second.received <= push.answered || clock_.now() < push.retry_at)) {
        continue;
      }
      push.model = model;
      push.digest = message.digest;
      push.attempt = ++attempts_;
      push.open = true;
      if (!same) push.delay = Millis(0);
      due.emplace_back(leader, push.attempt);
    }
  }
  for (const auto& [leader, attempt] : due) send(leader, token, message, attempt);
}

void LeaderPushes::send(const Leader& leader, const std::string& token,
                        const LeaderMessage& message, std::uint64_t attempt) {
  http::Target target;
  target.host = leader.ip;
  target.port = port_;
  target.path = message.path;
  target.headers["Authorization"] = "Bearer " + token;
  target.headers["Content-Type"] = "application/json";
  std::unique_ptr<http::Client::Handle> handle =
      client_.send(message.method, std::move(target), message.body, kTimeoutSeconds,
                   [this, uid = leader.uid, attempt, about = message.about](
                       const Result<http::Response>& how) { on_answer(uid, attempt, about, how); });
  std::unique_lock lock(mutex_);
  const auto at = pushes_.find(leader.uid);
  if (at != pushes_.end() && at->second.attempt == attempt) std::swap(at->second.handle, handle);
  lock.unlock();  // the one before, or the one that is not wanted any more, goes without the lock
}

void LeaderPushes::on_answer(const std::string& uid, std::uint64_t attempt,
                             const std::string& about, const Result<http::Response>& how) {
  const bool good = how && how->status / 100 == 2;
  std::string model;
  Millis delay{0};
  {
    const std::lock_guard lock(mutex_);
    const auto at = pushes_.find(uid);
    if (at == pushes_.end() || at->second.attempt != attempt) return;
    Push& push = at->second;
    push.open = false;
    model = push.model;
    if (good) {
      push.answered = clock_.wall_now();
      push.delay = Millis(0);
    } else {
      push.delay = push.delay.count() == 0 ? kFirstRetry : std::min(push.delay * 2, kLongestRetry);
      push.retry_at = clock_.now() + push.delay;
    }
    delay = push.delay;
  }
  if (good) return log_.info("told a leader", {{"what", about}, {"model", model}, {"pod", uid}});
  log_.info("leader not told",
            {{"what", about},
             {"model", model},
             {"pod", uid},
             {"why", how ? "it answered " + std::to_string(how->status) : how.error().message}});
  again_(model, delay);
}

void LeaderPushes::forget(const std::string& model) {
  tell(model, {}, {}, "", {});
}

}  // namespace dsm::runtime
