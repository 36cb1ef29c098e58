#include "operator/faults/leader_voices.h"

#include <algorithm>
#include <utility>

#include "base/random.h"
#include "kube/config.h"
#include "operator/api/names.h"

namespace dsm::faults {

void LeaderVoices::set(const std::string& model, const std::vector<runtime::Leader>& leaders,
                       const std::string& token) {
  if (leaders.empty() || token.empty()) {
    lines_.erase(model);
    return;
  }
  Lines& lines = lines_[model];
  if (lines.token != token) lines = {token, {}};
  std::erase_if(lines.heard, [&](const auto& line) {
    return std::ranges::find(leaders, line.first, &runtime::Leader::uid) == leaders.end();
  });
  for (const runtime::Leader& leader : leaders) lines.heard.try_emplace(leader.uid);
}

std::map<std::string, plan::LeaderStatus> LeaderVoices::latest(const std::string& model) const {
  const auto found = lines_.find(model);
  if (found == lines_.end()) return {};
  auto heard = found->second.heard;
  std::erase_if(heard, [](const auto& line) { return line.second.phase.empty(); });
  return heard;
}

bool LeaderVoices::opens(const std::string& model, const std::string& token) const {
  const Json* const secret = server_.objects().find(
      kube::kSecrets,
      model.substr(0, model.find('/') + 1) + api::token_secret(model.substr(model.find('/') + 1)));
  return secret != nullptr &&
         kube::base64_decode((*secret)["data"][std::string(api::kTokenKey)].get<std::string>())
                 .value_or("") == token;
}

void LeaderVoices::tell_sleep(const std::string& model, const std::vector<runtime::Leader>& leaders,
                              const std::string& token, bool sleep) {
  if (!opens(model, token)) return;
  for (const auto& [uid, said] : latest(model)) {
    if (said.told_to_sleep == sleep) continue;
    const bool known = std::ranges::find(leaders, uid, &runtime::Leader::uid) != leaders.end();
    plan::SimulatedPod* const pod = known ? server_.kubelets().pod_of_uid(uid) : nullptr;
    if (pod != nullptr && pod->started >= 0) server_.kubelets().tell_sleep(*pod, sleep);
  }
}

void LeaderVoices::listen(const OnNews& on_news) {
  if (std::exchange(heard_s_, server_.kubelets().now_s()) == server_.kubelets().now_s()) return;
  for (auto& [model, lines] : lines_) {
    if (!opens(model, lines.token)) {
      on_news(model, runtime::StreamNews::kRefused);
      continue;
    }
    for (auto& [uid, heard] : lines.heard) {
      const plan::SimulatedPod* const pod = server_.kubelets().pod_of_uid(uid);
      if (pod == nullptr || pod->started < 0) continue;
      plan::LeaderStatus now = server_.kubelets().says(*pod);
      // Requests come and go all the time.
      const std::uint64_t second = static_cast<std::uint64_t>(heard_s_);
      now.running = static_cast<long>(mix64(std::hash<std::string>()(uid) + second) % 5);
      if (server_.kubelets().queue_of) now.queue_depth = server_.kubelets().queue_of(*pod);
      const bool news = now.phase != heard.phase || now.told_to_sleep != heard.told_to_sleep;
      heard = std::move(now);
      if (news) on_news(model, runtime::StreamNews::kState);
    }
  }
}

}  // namespace dsm::faults
