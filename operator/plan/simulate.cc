#include "operator/plan/simulate.h"

#include <algorithm>
#include <stdexcept>

#include "operator/api/names.h"
#include "operator/plan/children.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

const WallTime kStart = from_rfc3339("2026-01-01T00:00:00Z");

std::string label(const json& pod, std::string_view key) {
  return pod["metadata"]["labels"].value(std::string(key), "");
}

bool deleted(const json& pod) {
  return pod["metadata"].contains("deletionTimestamp");
}

void set_condition(json& pod, const char* type, bool is, const std::string& reason,
                   const std::string& message, WallTime now) {
  json& conditions = pod["status"]["conditions"];
  json next = {{"type", type}, {"status", is ? "True" : "False"}};
  if (!reason.empty()) next["reason"] = reason;
  if (!message.empty()) next["message"] = message;
  for (json& condition : conditions) {
    if (condition["type"] != type) continue;
    const bool same = condition["status"] == next["status"];
    next["lastTransitionTime"] = same ? condition["lastTransitionTime"] : json(to_rfc3339(now));
    condition = std::move(next);
    return;
  }
  next["lastTransitionTime"] = to_rfc3339(now);
  conditions.push_back(std::move(next));
}

bool is_ready(const json& pod) {
  for (const json& condition : pod["status"].value("conditions", json::array())) {
    if (condition["type"] == "Ready") return condition["status"] == "True";
  }
  return false;
}

}  // namespace

Simulation::Simulation(json spec) {
  model_ = {
      {"apiVersion", "deepseek-operator.io/v1alpha1"},
      {"kind", "DeepSeekModel"},
      {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", "model-uid"}, {"generation", 1}}},
      {"spec", std::move(spec)},
      {"status", json::object()}};
}

WallTime Simulation::now() const {
  return kStart + Seconds(now_s_);
}

char Simulation::letter(const std::string& revision) const {
  auto at = letters_of_.find(revision);
  if (at == std::string::npos) {
    at = letters_of_.size();
    letters_of_ += revision + ",";
  }
  return static_cast<char>('A' + at / 9);
}

std::string Simulation::short_name(const json& pod) const {
  return std::string(1, letter(label(pod, api::kRevisionLabel))) + label(pod, api::kGroupLabel) +
         "." + label(pod, api::kPodIndexLabel);
}

Simulation::Pod& Simulation::find(const std::string& name) {
  const auto it =
      std::ranges::find_if(pods_, [&](const Pod& pod) { return short_name(pod.object) == name; });
  if (it == pods_.end()) throw std::out_of_range("no pod " + name);
  return *it;
}

const json& Simulation::pod(const std::string& name) const {
  return const_cast<Simulation*>(this)->find(name).object;
}

std::vector<std::string> Simulation::pods() const {
  std::vector<std::string> names;
  for (const Pod& pod : pods_) names.push_back(short_name(pod.object));
  std::ranges::sort(names);
  return names;
}

void Simulation::edit(const json& merge_patch) {
  const json before = model_["spec"];
  model_["spec"].merge_patch(merge_patch);
  if (model_["spec"] == before) return;
  model_["metadata"]["generation"] = model_["metadata"]["generation"].get<long>() + 1;
  dirty_ = true;
}

void Simulation::delete_pod(Pod& pod, int grace_s) {
  if (deleted(pod.object)) return;
  pod.object["metadata"]["deletionTimestamp"] = to_rfc3339(now() + Seconds(grace_s));
  const bool leader = label(pod.object, api::kRoleLabel) == api::kRoleLeader;
  const bool runs = pod.started >= 0;
  if (!pod.lost) pod.ends = now_s_ + (runs && leader ? drain_s : 1);
  if (runs) set_condition(pod.object, "Ready", false, "", "", now());
  dirty_ = true;
}

void Simulation::remove_pod(const std::string& name) {
  delete_pod(find(name), 75);
}

void Simulation::fail_pod(const std::string& name) {
  Pod& pod = find(name);
  pod.object["status"]["phase"] = "Failed";
  pod.object["status"]["reason"] = "Evicted";
  pod.object["status"]["message"] = "the node was low on memory";
  set_condition(pod.object, "Ready", false, "", "", now());
  pod.started = -1;
  dirty_ = true;
}

void Simulation::crash_pod(const std::string& name) {
  Pod& pod = find(name);
  json& container = pod.object["status"]["containerStatuses"][0];
  container["restartCount"] = container["restartCount"].get<int>() + 1;
  container["state"] = {{"waiting", {{"reason", "CrashLoopBackOff"}}}};
  container["lastState"] = {
      {"terminated", {{"exitCode", 9}, {"reason", "Error"}, {"message", "killed"}}}};
  set_condition(pod.object, "Ready", false, "", "", now());
  pod.started = -1;
  pod.back_at = now_s_ + 3;
  dirty_ = true;
}

void Simulation::lose_node(const std::string& name) {
  Pod& pod = find(name);
  pod.lost = true;
  pod.started = -1;
  set_condition(pod.object, "Ready", false, "", "", now());
  delete_pod(pod, 75);
}

void Simulation::drift(const std::string& service, const json& merge_patch) {
  for (json& child : children_) {
    if (child["metadata"]["name"] == service) child.merge_patch(merge_patch);
  }
  dirty_ = true;
}

void Simulation::delete_model() {
  model_["metadata"]["deletionTimestamp"] = to_rfc3339(now());
  dirty_ = true;
}

std::string Simulation::condition(const std::string& type) const {
  for (const json& c : model_["status"].value("conditions", json::array())) {
    if (c["type"] == type) {
      return c["status"].get<std::string>() + "/" + c["reason"].get<std::string>();
    }
  }
  return "none";
}

std::string Simulation::message(const std::string& type) const {
  for (const json& c : model_["status"].value("conditions", json::array())) {
    if (c["type"] == type) return c["message"];
  }
  return "none";
}

void Simulation::say(const std::string& text) {
  const std::string when = std::to_string(now_s_) + "s";
  if (history_.empty() || !history_.back().starts_with(when + " ")) history_.push_back(when);
  history_.back() += " " + text;
}

void Simulation::look() {
  Observed observed;
  observed.model = model_;
  observed.children = children_;
  observed.failures = failures_;
  observed.fresh_token = std::string(64, 'f');
  observed.status_written = status_written_;
  observed.now = now();
  observed.config = config;
  observed.metrics_api = metrics_api;
  for (const Pod& pod : pods_) {
    observed.pods.push_back(pod_view(pod.object));
    if (label(pod.object, api::kRoleLabel) != api::kRoleLeader || pod.started < 0) continue;
    const bool loaded = now_s_ >= pod.started + load_s;
    LeaderStatus status;
    status.phase = !loaded ? "Loading" : group_loaded(pod) ? "Ready" : "Rendezvous";
    status.total_bytes = 100;
    status.loaded_bytes = loaded ? 100 : 50;
    status.kv_total = 1000;
    status.max_model_len = 512;
    const auto held = work.find(short_name(pod.object));
    status.running = held == work.end() ? 0 : held->second;
    status.received = now();
    observed.leaders[pod.object["metadata"]["uid"]] = status;
  }
  ++looks_;
  dirty_ = false;
  const Plan next = plan(observed);
  wake_s_ = next.requeue_after == Millis(0)
                ? -1
                : now_s_ + static_cast<int>(std::chrono::ceil<Seconds>(next.requeue_after).count());
  carry_out(next);
}

void Simulation::carry_out(const Plan& next) {
  const auto wrote = [&] {
    ++writes_;
    dirty_ = true;
  };
  const auto refused = [&](const std::string& kind, const std::string& name, ErrorKind error,
                           const std::string& message) {
    std::erase_if(failures_,
                  [&](const WriteFailure& f) { return f.kind == kind && f.name == name; });
    failures_.push_back({kind, name, error, message, now()});
    dirty_ = true;
  };
  const auto done = [&](const std::string& kind, const std::string& name) {
    std::erase_if(failures_,
                  [&](const WriteFailure& f) { return f.kind == kind && f.name == name; });
    wrote();
  };
  for (const Removal& removal : next.remove) {
    if (removal.kind != "Pod") {
      std::erase_if(children_, [&](const json& c) { return c["metadata"]["uid"] == removal.uid; });
      wrote();
      continue;
    }
    for (Pod& pod : pods_) {
      if (pod.object["metadata"]["uid"] != removal.uid) continue;
      say("-" + short_name(pod.object));
      for (const Pod& other : pods_) {
        const bool leads = label(other.object, api::kRoleLabel) == api::kRoleLeader &&
                           label(pod.object, api::kRoleLabel) != api::kRoleLeader;
        const bool same = short_name(other.object).substr(0, short_name(other.object).find('.')) ==
                          short_name(pod.object).substr(0, short_name(pod.object).find('.'));
        if (leads && same && deleted(other.object) && other.started >= 0) {
          breaches_.push_back(std::to_string(now_s_) + "s: " + short_name(pod.object) +
                              " does not outlive its leader");
        }
      }
      delete_pod(pod, pod.object["spec"]["terminationGracePeriodSeconds"]);
      wrote();
    }
  }
  for (const ChildWrite& child : next.children) {
    if (foreign.contains(child.kind + "/" + child.name)) {
      refused(child.kind, child.name, ErrorKind::kConflict, "already exists");
      continue;
    }
    json object = child.object;
    if (child.verb == ChildWrite::Verb::kCreate) {
      object["metadata"]["uid"] = "uid-" + std::to_string(++uids_);
      children_.push_back(std::move(object));
      done(child.kind, child.name);
      continue;
    }
    const auto there = std::ranges::find_if(children_, [&](const json& c) {
      return c["metadata"]["uid"] == object["metadata"]["uid"];
    });
    if (there == children_.end()) continue;
    // The API server keeps a port of another number beside the applied one and refuses the result.
    if (child.verb == ChildWrite::Verb::kApply && !same_port_keys(object, *there)) {
      refused(child.kind, child.name, ErrorKind::kInvalid, "duplicate port name");
      continue;
    }
    if (object["spec"].contains("selector")) (*there)["spec"].erase("selector");
    there->merge_patch(object);
    done(child.kind, child.name);
  }
  for (const json& object : next.create_pods) {
    const std::string name = object["metadata"]["name"];
    const bool taken = std::ranges::any_of(
        pods_, [&](const Pod& pod) { return pod.object["metadata"]["name"] == name; });
    if (taken) breaches_.push_back(std::to_string(now_s_) + "s: " + name + " made twice");
    if (foreign.contains("Pod/" + name)) {
      refused("Pod", name, ErrorKind::kConflict, "already exists");
      continue;
    }
    if (static_cast<int>(pods_.size()) >= quota) {
      refused("Pod", name, ErrorKind::kDenied, "exceeded quota: pods");
      continue;
    }
    Pod pod{.object = object};
    pod.object["metadata"]["uid"] = "uid-" + std::to_string(++uids_);
    pod.object["metadata"]["creationTimestamp"] = to_rfc3339(now());
    pod.object["status"] = {{"phase", "Pending"}, {"conditions", json::array()}};
    say("+" + short_name(pod.object));
    pods_.push_back(std::move(pod));
    done("Pod", name);
  }
  for (const EventNote& event : next.events) events_.push_back(event.reason);
  if (next.status) {
    if (*next.status == model_["status"]) breaches_.emplace_back("a status that says nothing new");
    model_["status"] = *next.status;
    status_written_ = now();
    wrote();
  }
  if (const std::string ready = condition("Ready"); ready != ready_said_) {
    ready_said_ = ready;
    if (ready != "none") say("Ready=" + ready);
  }
}

void Simulation::schedule(Pod& pod, int& used) {
  if (pod.object["spec"].contains("nodeName")) {
    ++used;
    return;
  }
  if (used < room) {
    ++used;
    pod.object["spec"]["nodeName"] = "node-" + label(pod.object, api::kGroupLabel);
    set_condition(pod.object, "PodScheduled", true, "", "", now());
    dirty_ = true;
    return;
  }
  const json before = pod.object;
  set_condition(pod.object, "PodScheduled", false, "Unschedulable", "0/1 nodes: no cpu", now());
  dirty_ = dirty_ || pod.object != before;
}

void Simulation::start_or_crash(Pod& pod) {
  if (pod.object["status"]["phase"] == "Failed" || pod.lost || deleted(pod.object)) return;
  if (!pod.object["spec"].contains("nodeName")) return;
  const bool bad = pod.object["spec"]["containers"][0]["image"] == bad_image;
  json& statuses = pod.object["status"]["containerStatuses"];
  if (pod.started < 0 && now_s_ >= pod.back_at) {
    pod.object["status"]["phase"] = "Running";
    if (statuses.is_null()) statuses = json::array({{{"restartCount", 0}}});
    statuses[0]["state"] = {{"running", json::object()}};
    pod.started = now_s_;
    dirty_ = true;
  } else if (bad && pod.started >= 0 && now_s_ > pod.started) {
    const int restarts = statuses[0]["restartCount"].get<int>();
    statuses[0]["state"] = {{"waiting", {{"reason", "CrashLoopBackOff"}}}};
    statuses[0]["lastState"] = {
        {"terminated", {{"exitCode", 1}, {"reason", "Error"}, {"message", "no such model"}}}};
    statuses[0]["restartCount"] = restarts + 1;
    pod.started = -1;
    pod.back_at = now_s_ + 5;
    dirty_ = true;
  }
}

bool Simulation::group_loaded(const Pod& pod) const {
  const std::string name = short_name(pod.object);
  const std::string group = name.substr(0, name.find('.') + 1);
  int there = 0;
  for (const Pod& other : pods_) {
    if (!short_name(other.object).starts_with(group) || other.started < 0) continue;
    there += now_s_ >= other.started + load_s ? 1 : 0;
  }
  const json& args = pod.object["spec"]["containers"][0]["args"];
  const auto at = std::ranges::find(args, json("--tensor-parallel"));
  const auto per = std::ranges::find(args, json("--ranks-per-pod"));
  const int tensor = std::stoi((at + 1)->get<std::string>());
  return there == (per == args.end() ? 1 : tensor / std::stoi((per + 1)->get<std::string>()));
}

// The scheduler and the kubelets.
void Simulation::live() {
  if (std::erase_if(pods_, [&](const Pod& pod) { return pod.ends >= 0 && pod.ends <= now_s_; }) >
      0) {
    dirty_ = true;
  }
  int used = 0;
  for (Pod& pod : pods_) {
    if (pod.object["spec"].contains("nodeName")) schedule(pod, used);
  }
  for (Pod& pod : pods_) {
    if (!pod.object["spec"].contains("nodeName")) schedule(pod, used);
    start_or_crash(pod);
  }
  for (Pod& pod : pods_) {
    const bool ready = pod.started >= 0 && !deleted(pod.object) && group_loaded(pod);
    if (pod.started < 0 || ready == is_ready(pod.object)) continue;
    set_condition(pod.object, "Ready", ready, "", "", now());
    dirty_ = true;
  }
}

int Simulation::ready_groups() const {
  return static_cast<int>(std::ranges::count_if(pods_, [&](const Pod& pod) {
    return label(pod.object, api::kRoleLabel) == api::kRoleLeader && is_ready(pod.object);
  }));
}

void Simulation::step() {
  if (dirty_ || (wake_s_ >= 0 && now_s_ >= wake_s_)) look();
  ++now_s_;
  live();
  if (ready_groups() < least_ready) {
    breaches_.push_back(std::to_string(now_s_) + "s: only " + std::to_string(ready_groups()) +
                        " groups are ready");
  }
}

void Simulation::run(int seconds) {
  for (int i = 0; i < seconds; ++i) step();
}

bool Simulation::settle(int most) {
  int calm = 0;
  for (int i = 0; i < most && calm < 20; ++i) {
    const int before = writes_;
    step();
    calm = writes_ == before ? calm + 1 : 0;
  }
  return calm >= 20;
}

}  // namespace dsm::plan
