#include "operator/plan/simulate.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "operator/api/names.h"
#include "operator/plan/children.h"
#include "operator/plan/new_child.h"
#include "operator/plan/simulate_json.h"
#include "operator/plan/sleep.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

const WallTime kStart = from_rfc3339("2026-01-01T00:00:00Z");
constexpr Seconds kFailureKept{600};  // as the runtime keeps them

// The object with the uid of `like`; nullptr when there is none.
json* same_uid(std::vector<json>& objects, const json& like) {
  const auto it = std::ranges::find_if(
      objects, [&](const json& o) { return o["metadata"]["uid"] == like["metadata"]["uid"]; });
  return it == objects.end() ? nullptr : &*it;
}

}  // namespace

Simulation::Simulation(json spec) : SimulatedCluster(kStart) {
  model_ = {
      {"apiVersion", "deepseek-operator.io/v1alpha1"},
      {"kind", "DeepSeekModel"},
      {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", "model-uid"}, {"generation", 1}}},
      {"spec", std::move(spec)},
      {"status", json::object()}};
  view_ = world();
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

std::vector<std::string> Simulation::children(const std::string& kind) const {
  std::vector<std::string> names;
  for (const json& child : children_) {
    if (child["kind"] == kind) names.push_back(child["metadata"]["name"]);
  }
  std::ranges::sort(names);
  return names;
}

Simulation::View Simulation::world() const {
  View view{model_, {}, children_, nodes_};
  for (const Pod& pod : pods_) view.pods.push_back(pod.object);
  return view;
}

bool Simulation::chance(double probability) {
  return faults.random != nullptr &&
         std::uniform_real_distribution<double>()(*faults.random) < probability;
}

// Each kind has a watch of its own, so one may be behind another.
void Simulation::watch() {
  if (faults.random == nullptr && !dirty_) return;  // nothing has changed
  View fresh = world();
  const auto bring = [&](auto& seen, auto& is) {
    if (chance(faults.stall) || seen == is) return;
    seen = std::move(is);
    dirty_ = true;
  };
  bring(view_.model, fresh.model);
  bring(view_.pods, fresh.pods);
  bring(view_.children, fresh.children);
  bring(view_.nodes, fresh.nodes);
}

// A pod of ours whose answer was lost is found when its name is taken.
void Simulation::forget_lost_answers() {
  std::erase_if(failures_, [&](const WriteFailure& failure) {
    if (failure.error != ErrorKind::kConflict || failure.kind != "Pod") return false;
    if (foreign.contains("Pod/" + failure.name)) return false;
    const auto named = [&](const json& pod) { return pod["metadata"]["name"] == failure.name; };
    if (std::ranges::any_of(view_.pods, named)) return true;
    for (const Pod& pod : pods_) {
      if (named(pod.object)) view_.pods.push_back(pod.object);
    }
    return true;
  });
}

// A child whose name is taken is read, whoever made it.
void Simulation::add_taken_names(Observed& observed) const {
  for (const WriteFailure& failure : failures_) {
    if (failure.error != ErrorKind::kConflict) continue;
    const auto is_it = [&](const json& child) {
      return child["kind"] == failure.kind && child["metadata"]["name"] == failure.name;
    };
    if (std::ranges::any_of(view_.children, is_it)) continue;
    std::ranges::copy_if(children_, std::back_inserter(observed.children), is_it);
  }
}

Observed Simulation::observe() {
  if (std::exchange(doubtful_, false)) view_.pods = world().pods;
  forget_lost_answers();
  Observed observed;
  observed.model = view_.model;
  observed.children = view_.children;
  std::erase_if(failures_, [&](const WriteFailure& f) { return f.time + kFailureKept <= now(); });
  observed.failures = failures_;
  observed.fresh_token = std::string(64, 'f');
  observed.status_written = status_written_;
  observed.now = now();
  observed.config = config;
  observed.metrics_api = metrics_api;
  observed.tenant = tenant;
  observed.pod_groups = pod_groups;
  for (const json& pod : view_.pods) observed.pods.push_back(pod_view(pod));
  add_taken_names(observed);
  if (config.watches_nodes) {
    for (const auto& [name, node] : view_.nodes) observed.nodes[name] = node_view(node);
  }
  for (const Pod& pod : pods_) {
    if (label(pod.object, api::kRoleLabel) != api::kRoleLeader || pod.started < 0) continue;
    LeaderStatus status = says(pod);
    const auto held = work.find(short_name(pod.object));
    status.running = held == work.end() ? 0 : held->second;
    observed.leaders[pod.object["metadata"]["uid"]] = status;
  }
  return observed;
}

void Simulation::look() {
  ++looks_;
  dirty_ = false;
  const Plan next = plan(observe());
  wake_s_ = next.requeue_after == Millis(0)
                ? -1
                : now_s_ + static_cast<int>(std::chrono::ceil<Seconds>(next.requeue_after).count());
  carry_out(next);
}

void Simulation::carry_out(const Plan& next) {
  cut_off_ = false;
  for (const Removal& removal : next.remove) {
    if (!cut_off_) remove(removal);
  }
  for (const ChildWrite& child : next.children) {
    if (!cut_off_) write_child(child);
  }
  for (const json& object : next.create_pods) {
    if (!cut_off_) create_pod(object);
  }
  if (next.status && !cut_off_) write_status(*next.status);
  if (cut_off_) return;
  for (const EventNote& event : next.events) events_.push_back(event.reason);
}

void Simulation::send(const std::function<void()>& effect, const std::function<void()>& answer) {
  const bool lost = chance(faults.lose);
  if (!lost || chance(0.5)) {
    effect();
    ++writes_;
  }
  dirty_ = true;
  if (!lost) return answer();
  cut_off_ = true;
  doubtful_ = true;
  if (!chance(0.5)) return;
  // The operator ends here; the next one has no memory and lists everything anew.
  failures_.clear();
  status_written_.reset();
  view_ = world();
}

void Simulation::refused(const std::string& kind, const std::string& name, ErrorKind error,
                         const std::string& message) {
  WriteFailure failure{kind, name, error, message, now()};
  std::erase_if(failures_, [&](const WriteFailure& f) {
    if (f.kind != kind || f.name != name) return false;
    if (f.error == error) failure.since = f.since.value_or(f.time);
    return true;
  });
  failures_.push_back(std::move(failure));
  dirty_ = true;
}

void Simulation::done(const std::string& kind, const std::string& name) {
  std::erase_if(failures_, [&](const WriteFailure& f) { return f.kind == kind && f.name == name; });
}

void Simulation::check_leader_is_outlived(const Pod& going) {
  const auto group_of = [&](const Pod& pod) {
    const std::string name = short_name(pod.object);
    return name.substr(0, name.find('.'));
  };
  if (label(going.object, api::kRoleLabel) == api::kRoleLeader) return;
  for (const Pod& other : pods_) {
    const bool leads = label(other.object, api::kRoleLabel) == api::kRoleLeader;
    if (!leads || group_of(other) != group_of(going)) continue;
    if (other.drains && other.started >= 0 && !other.lost) {
      breaches_.push_back(std::to_string(now_s_) + "s: " + short_name(going.object) +
                          " does not outlive its leader");
    }
  }
}

void Simulation::remove(const Removal& removal) {
  const auto is_it = [&](const json& object) { return object["metadata"]["uid"] == removal.uid; };
  if (removal.kind != "Pod") {
    send([&] { std::erase_if(children_, is_it); }, [&] { std::erase_if(view_.children, is_it); });
    return;
  }
  const auto pod = std::ranges::find_if(pods_, [&](const Pod& p) { return is_it(p.object); });
  if (pod == pods_.end()) {  // 404: gone already
    std::erase_if(view_.pods, is_it);
    return;
  }
  send(
      [&] {
        say("-" + short_name(pod->object));
        check_leader_is_outlived(*pod);
        SimulatedCluster::remove(*pod, pod->object["spec"]["terminationGracePeriodSeconds"]);
      },
      [&] {
        if (json* seen = same_uid(view_.pods, pod->object)) *seen = pod->object;
      });
}

void Simulation::write_child(const ChildWrite& child) {
  if (foreign.contains(child.kind + "/" + child.name)) {
    return refused(child.kind, child.name, ErrorKind::kConflict, "already exists");
  }
  json object = child.object;
  if (makes(child)) {
    const auto same = [&](const json& c) {
      return c["kind"] == child.kind && c["metadata"]["name"] == child.name;
    };
    if (std::ranges::any_of(children_, same)) {
      return refused(child.kind, child.name, ErrorKind::kConflict, "already exists");
    }
    object["metadata"]["uid"] = "uid-" + std::to_string(++uids_);
    object["metadata"]["creationTimestamp"] = to_rfc3339(now());
    return send([&] { children_.push_back(object); },
                [&] {
                  view_.children.push_back(object);
                  done(child.kind, child.name);
                });
  }
  json* there = same_uid(children_, object);
  if (there == nullptr) return;
  // The API server keeps a port of another number beside the applied one and refuses the result.
  if (child.verb == ChildWrite::Verb::kApply && !same_port_keys(object, *there)) {
    return refused(child.kind, child.name, ErrorKind::kInvalid, "duplicate port name");
  }
  send(
      [&] {
        if (object["spec"].contains("selector")) (*there)["spec"].erase("selector");
        there->merge_patch(object);
      },
      [&] {
        if (json* seen = same_uid(view_.children, object)) *seen = *there;
        done(child.kind, child.name);
      });
}

void Simulation::create_pod(const json& object) {
  const std::string name = object["metadata"]["name"];
  const bool taken = std::ranges::any_of(
      pods_, [&](const Pod& pod) { return pod.object["metadata"]["name"] == name; });
  // Without faults what is there is seen.
  if (taken && faults.random == nullptr) {
    breaches_.push_back(std::to_string(now_s_) + "s: " + name + " made twice");
  }
  if (taken || foreign.contains("Pod/" + name)) {
    return refused("Pod", name, ErrorKind::kConflict, "already exists");
  }
  if (static_cast<int>(pods_.size()) >= quota) {
    return refused("Pod", name, ErrorKind::kDenied, "exceeded quota: pods");
  }
  Pod pod{.object = object};
  pod.object["metadata"]["uid"] = "uid-" + std::to_string(++uids_);
  pod.object["metadata"]["creationTimestamp"] = to_rfc3339(now());
  pod.object["status"] = {{"phase", "Pending"}, {"conditions", json::array()}};
  send(
      [&] {
        say("+" + short_name(pod.object));
        pods_.push_back(pod);
      },
      [&] {
        view_.pods.push_back(pod.object);
        done("Pod", name);
      });
}

void Simulation::write_status(const json& status) {
  if (status == model_["status"] && faults.random == nullptr) {
    breaches_.emplace_back("a status that says nothing new");
  }
  send([&] { model_["status"] = status; },
       [&] {
         view_.model["status"] = status;
         status_written_ = now();
       });
  if (const std::string ready = condition("Ready"); ready != ready_said_) {
    ready_said_ = ready;
    if (ready != "none") say("Ready=" + ready);
  }
}

void Simulation::edit_quickly(const std::vector<json>& merge_patches, Millis apart) {
  const int began = now_s_;
  for (std::size_t i = 0; i < merge_patches.size(); ++i) {
    const Millis at = apart * static_cast<int>(i);
    while (began + std::chrono::floor<Seconds>(at).count() > now_s_) {
      part_of_s_ = Millis(0);
      step();
    }
    part_of_s_ = at % Seconds(1);
    edit(merge_patches[i]);
    watch();
    // Like the runtime: until there is nothing left to write.
    for (int looks = 0; dirty_ && looks < 5; ++looks) {
      look();
      watch();
    }
  }
  part_of_s_ = Millis(0);
}

void Simulation::step() {
  for (Pod& pod : pods_) {
    const bool leader = label(pod.object, api::kRoleLabel) == api::kRoleLeader;
    if (leader) tell_sleep(pod, wants_sleep(model_));
  }
  watch();
  if (dirty_ || (wake_s_ >= 0 && now_s_ >= wake_s_)) look();
  next_second();
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
