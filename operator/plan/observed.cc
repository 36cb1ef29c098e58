#include "operator/plan/observed.h"

#include <algorithm>
#include <charconv>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/devices.h"
#include "operator/plan/kueue.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

// Looks along a path of keys; a missing or strange part gives null.
const json& at(const json& from, std::initializer_list<std::string_view> keys) {
  static const json kNull;
  const json* here = &from;
  for (const auto key : keys) {
    if (!here->is_object()) return kNull;
    const auto it = here->find(key);
    if (it == here->end()) return kNull;
    here = &*it;
  }
  return *here;
}

std::string text(const json& from, std::initializer_list<std::string_view> keys) {
  const json& value = at(from, keys);
  return value.is_string() ? value.get<std::string>() : std::string();
}

long number(const json& from, std::initializer_list<std::string_view> keys) {
  const json& value = at(from, keys);
  return value.is_number() ? value.get<long>() : 0;
}

int number_of(const std::string& digits) {
  int value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && end == digits.data() + digits.size() ? value : -1;
}

std::string controller_uid(const json& object) {
  const json& owners = at(object, {"metadata", "ownerReferences"});
  if (!owners.is_array()) return {};
  for (const auto& owner : owners) {
    if (at(owner, {"controller"}) == json(true)) return text(owner, {"uid"});
  }
  return {};
}

// The end of a long text: the last lines of a log say what went wrong.
std::string tail(std::string text) {
  constexpr std::size_t kMost = 300;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  if (text.size() <= kMost) return text;
  std::size_t from = text.size() - kMost;
  // Not into the middle of a UTF-8 character.
  while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0U) == 0x80U) ++from;
  return "..." + text.substr(from);
}

// The beginning of a long text: a scheduler says first what no node has.
std::string head(std::string text) {
  constexpr std::size_t kMost = 300;
  if (text.size() <= kMost) return text;
  std::size_t to = kMost;
  while (to > 0 && (static_cast<unsigned char>(text[to]) & 0xC0U) == 0x80U) --to;
  return text.substr(0, to) + "...";
}

void read_holds(const json& pod, PodView& view) {
  const json& gates = at(pod, {"spec", "schedulingGates"});
  if (gates.is_array() && !gates.empty()) view.gate = text(gates.front(), {"name"});
  const json& finalizers = at(pod, {"metadata", "finalizers"});
  view.queued = finalizers.is_array() &&
                std::ranges::find(finalizers, json(kQueueFinalizer)) != finalizers.end();
  const std::string together = text(pod, {"metadata", "labels", kPodGroupLabel});
  view.bound_together = !together.empty() && together == api::group_of_pod(view.name);
  view.drain = at(pod, {"metadata", "annotations", api::kDrainAnnotation}).is_string();
}

void read_conditions(const json& pod, PodView& view) {
  const json& conditions = at(pod, {"status", "conditions"});
  if (!conditions.is_array()) return;
  for (const auto& condition : conditions) {
    const auto type = text(condition, {"type"});
    const auto status = text(condition, {"status"});
    if (type == "Ready") view.ready = status == "True";
    if (type == "Ready" && view.ready) {
      view.ready_at = from_rfc3339(text(condition, {"lastTransitionTime"}));
    }
    if (type == "PodReadyToStartContainers") view.sandboxed = status != "False";
    if (type == "PodScheduled" && status == "True") {
      view.scheduled = from_rfc3339(text(condition, {"lastTransitionTime"}));
    }
    if (type == "PodScheduled" && status == "False" &&
        text(condition, {"reason"}) == "Unschedulable") {
      view.unschedulable_since = from_rfc3339(text(condition, {"lastTransitionTime"}));
      view.unschedulable_message = head(text(condition, {"message"}));
    }
  }
}

// "ProbeFailed: what is wrong" is a reason and a message; anything else is a message.
void read_last_words(std::string_view words, PodView& view) {
  for (const std::string_view reason : api::kWorkerReasons) {
    if (!words.starts_with(reason) || !words.substr(reason.size()).starts_with(": ")) continue;
    view.exit_why = reason;
    words.remove_prefix(reason.size() + 2);
    break;
  }
  view.exit_message = tail(std::string(words));
}

void read_container(const json& pod, PodView& view) {
  const json& containers = at(pod, {"status", "containerStatuses"});
  if (!containers.is_array() || containers.empty()) return;
  const json& worker = containers.front();
  view.restarts = static_cast<int>(number(worker, {"restartCount"}));
  view.running = at(worker, {"state", "running"}).is_object();
  if (const auto started = text(worker, {"state", "running", "startedAt"}); !started.empty()) {
    view.started = from_rfc3339(started);
  }
  view.waiting_reason = text(worker, {"state", "waiting", "reason"});
  view.waiting_message = tail(text(worker, {"state", "waiting", "message"}));
  const json& ended_now = at(worker, {"state", "terminated"});
  const json& ended = ended_now.is_object() ? ended_now : at(worker, {"lastState", "terminated"});
  view.exit_reason = text(ended, {"reason"});
  view.exit_code = static_cast<int>(number(ended, {"exitCode"}));
  read_last_words(text(ended, {"message"}), view);
}

}  // namespace

PodView pod_view(const json& pod) {
  PodView view;
  view.name = text(pod, {"metadata", "name"});
  view.uid = text(pod, {"metadata", "uid"});
  view.owner_uid = controller_uid(pod);
  view.revision = text(pod, {"metadata", "labels", api::kRevisionLabel});
  view.group = number_of(text(pod, {"metadata", "labels", api::kGroupLabel}));
  view.index = number_of(text(pod, {"metadata", "labels", api::kPodIndexLabel}));
  view.phase = text(pod, {"status", "phase"});
  view.node = text(pod, {"spec", "nodeName"});
  view.ip = text(pod, {"status", "podIP"});
  view.created = from_rfc3339(text(pod, {"metadata", "creationTimestamp"}));
  if (const auto deletion = text(pod, {"metadata", "deletionTimestamp"}); !deletion.empty()) {
    view.deletion = from_rfc3339(deletion);
  }
  view.status_reason = text(pod, {"status", "reason"});
  view.status_message = tail(text(pod, {"status", "message"}));
  read_holds(pod, view);
  read_conditions(pod, view);
  read_container(pod, view);
  return view;
}

NodeView node_view(const json& node) {
  NodeView view;
  view.name = text(node, {"metadata", "name"});
  view.unschedulable = at(node, {"spec", "unschedulable"}) == json(true);
  if (const json& taints = at(node, {"spec", "taints"}); taints.is_array()) {
    for (const auto& taint : taints) {
      view.taints.push_back(
          {text(taint, {"key"}), text(taint, {"value"}), text(taint, {"effect"})});
    }
  }
  if (const json& conditions = at(node, {"status", "conditions"}); conditions.is_array()) {
    for (const auto& condition : conditions) {
      if (text(condition, {"type"}) == "Ready") view.ready = text(condition, {"status"}) == "True";
    }
  }
  return view;
}

Result<LeaderStatus> leader_status(std::string_view line, WallTime received) {
  const json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) {
    return fail(ErrorKind::kInvalid, "a line of the status stream is not a JSON object");
  }
  LeaderStatus status;
  status.phase = text(parsed, {"phase"});
  status.reason = text(parsed, {"reason"});
  status.message = tail(text(parsed, {"message"}));
  status.last_error = tail(text(parsed, {"lastError"}));
  status.loaded_bytes = number(parsed, {"loadedBytes"});
  status.total_bytes = number(parsed, {"totalBytes"});
  status.queue_depth = number(parsed, {"queueDepth"});
  status.queue_age_s = number(parsed, {"queueAgeSeconds"});
  status.running = number(parsed, {"running"});
  status.kv_used = number(parsed, {"kvUsed"});
  status.kv_total = number(parsed, {"kvTotal"});
  status.max_model_len = number(parsed, {"maxModelLen"});
  status.told_to_sleep = at(parsed, {"sleep"}) == json(true);
  status.keys = text(parsed, {"keys"});
  const json& ranks = at(parsed, {"ranks"});
  status.ranks = rank_count(ranks);
  status.sick = sick_devices(ranks);
  const json& rate = at(parsed, {"tokensPerSecond"});
  if (rate.is_number()) status.tokens_per_second = rate.get<double>();
  status.received = received;
  return status;
}

}  // namespace dsm::plan
