#include "operator/faults/world.h"

#include <algorithm>
#include <set>
#include <utility>

#include "kube/parse.h"
#include "operator/api/names.h"
#include "operator/plan/children.h"
#include "operator/plan/simulate_json.h"

namespace dsm::faults {
namespace {

using kube::member;
using kube::text_of;
using plan::label;

constexpr std::size_t kMostRevisions = 6;

std::string group_of(const Json& pod) {
  return label(pod, api::kRevisionLabel) + "-" + label(pod, api::kGroupLabel);
}

std::string condition(const Json& model, const std::string& type) {
  for (const Json& each : member(model, "status").value("conditions", Json::array())) {
    if (each["type"] == type) {
      return each["status"].get<std::string>() + "/" + each["reason"].get<std::string>();
    }
  }
  return "none";
}

std::string verb_of(const kube::HttpRequest& request) {
  if (request.method != "PATCH") return request.method;
  const auto type = std::ranges::find(request.headers, "Content-Type",
                                      &std::pair<std::string, std::string>::first);
  if (type->second == "application/apply-patch+yaml") return "apply";
  return type->second == "application/merge-patch+json" ? "merge patch" : "strategic patch";
}

}  // namespace

World::World(FaultSource& faults, const runtime::ModelLoopOptions& options)
    : server_(clock_), next_second_(clock_.now() + Seconds(1)) {
  for (int i = 0; i < kOperators; ++i) {
    Wire::Hooks hooks;
    hooks.stand_still = [this](Millis time) { run(time); };
    hooks.writes = [this, i](const kube::HttpRequest& request, bool stopped) {
      on_write(replica(i), request, stopped);
    };
    replicas_.push_back(std::make_unique<Replica>("operator-" + std::to_string(i), server_, clock_,
                                                  faults, std::move(hooks), options));
  }
}

void World::breach(const std::string& what) {
  breaches_.push_back(std::to_string(now_s()) + "s: " + what);
}

// An operator that stands still calls this from within its own tick: the others go on.
void World::run(Millis time, Millis step) {
  const TimePoint end = clock_.now() + time;
  while (clock_.now() < end) {
    clock_.advance(step);
    while (next_second_ <= clock_.now()) {
      next_second_ += Seconds(1);
      server_.pass_second();
      check_second();
      for (const auto& act : controllers) act();
      // What a controller asks for is promised at once.
      if (checked_ != server_.objects().version()) check_state();
    }
    for (const auto& replica : replicas_) {
      if (!replica->tick()) breach(replica->name() + " looks again and again");
    }
  }
}

bool World::settle(Seconds most) {
  int calm = 0;
  for (long i = 0; i < most.count() && calm < 30; ++i) {
    const int before = writes_;
    run(Seconds(1), Millis(500));
    calm = writes_ == before ? calm + 1 : 0;
  }
  return calm >= 30;
}

// Never two owners: who writes holds the Lease at that moment.
void World::on_write(const Replica& writer, const kube::HttpRequest& request, bool stopped) {
  verbs_[server_.what(request)].insert(verb_of(request));
  if (request.target.find("/leases") != std::string::npos) return;
  ++writes_;
  // What a model asks for is its user's, and its autoscaler's.
  if (server_.what(request) == "deepseekmodels") breach(writer.identity() + " writes a spec");
  const Json* const lease = server_.objects().find(kube::kLeases, "operator/deepseek-operator");
  const std::string holder =
      lease == nullptr ? "" : text_of(member(*lease, "spec"), "holderIdentity");
  if (holder == writer.identity()) return;
  if (!stopped) {
    return breach(writer.identity() + " writes, " + holder + " holds the lease: " + request.method +
                  " " + request.target);
  }
  // No lease can hold a write back that its process has sent already.
  ++late_writes_;
  for (auto& [uid, promise] : promises_) promise.excuse();
}

std::vector<const plan::SimulatedPod*> World::pods_of(const Json& model) const {
  std::vector<const plan::SimulatedPod*> pods;
  for (const plan::SimulatedPod& pod : server_.kubelets().all_pods()) {
    if (plan::controller_uid(pod.object) == text_of(model["metadata"], "uid")) pods.push_back(&pod);
  }
  return pods;
}

void World::check_second() {
  const std::uint64_t now = server_.objects().version();
  if (std::exchange(checked_, now) != now) check_state();
  const auto models = std::max<std::size_t>(1, server_.objects().all(kube::kDeepSeekModels).size());
  const int written = writes_ - writes_before_;
  if (written > kMostWritesInASecond * static_cast<int>(models)) {
    breach(std::to_string(written) + " writes in one second");
  }
  writes_before_ = writes_;
}

void World::check_state() {
  for (const auto& [key, model] : server_.objects().all(kube::kDeepSeekModels)) {
    check_model(key, model);
  }
  check_owners();
  if (also_check) also_check();
}

void World::check_model(const std::string& key, const Json& model) {
  if (model["metadata"].contains("deletionTimestamp")) return;
  std::set<std::string> groups;
  int standing = 0;
  for (const plan::SimulatedPod* const pod : pods_of(model)) {
    // One that has ended and is only held takes nothing.
    const bool held = plan::deleted(pod->object) && plan::has_ended(pod->object);
    if (!held) groups.insert(group_of(pod->object));
    standing += leads_standing_group(*pod);
  }
  plan::RolloutPromise& promise = promises_[model["metadata"]["uid"].get<std::string>()];
  if (excused && excused(model)) promise.excuse();
  for (const std::string& broken :
       promise.check(model, static_cast<int>(groups.size()), standing)) {
    if (!harm) breach(key + ": " + broken);
  }
}

// Each pod has one owner, and is the one of its place.
void World::check_owners() {
  std::set<std::string> places;
  for (const plan::SimulatedPod& pod : server_.kubelets().all_pods()) {
    const Json& metadata = pod.object["metadata"];
    if (metadata.value("ownerReferences", Json::array()).size() != 1) {
      breach(key_of(pod.object) + " does not have one owner");
    }
    const std::string model = label(pod.object, api::kModelLabel);
    const std::string place = text_of(metadata, "namespace") + "/" + model + "-" +
                              group_of(pod.object) + "-" + label(pod.object, api::kPodIndexLabel);
    if (place != key_of(pod.object)) breach(key_of(pod.object) + " is in the place of " + place);
    if (!places.insert(place).second) breach("two pods in the place of " + place);
  }
}

void World::check_end() {
  if (writes_ > most_writes()) {
    breach(std::to_string(writes_) + " writes, " + std::to_string(most_writes()) +
           " are enough for what was made and has happened");
  }
  std::set<std::string> living;
  for (const auto& [key, model] : server_.objects().all(kube::kDeepSeekModels)) {
    living.insert(model["metadata"]["uid"].get<std::string>());
    check_end_of(model);
  }
  for (const kube::Resource* const resource :
       {&kube::kPods, &kube::kServices, &kube::kSecrets, &kube::kControllerRevisions,
        &kube::kPodDisruptionBudgets, &kube::kAutoscalers, &kube::kPodGroups}) {
    for (const auto& [key, object] : server_.objects().all(*resource)) {
      if (!living.contains(plan::controller_uid(object))) {
        breach(std::string(resource->kind) + " " + key + " is an orphan");
      }
    }
  }
}

int World::most_writes() const {
  const Objects& objects = server_.objects();
  long events = std::ssize(objects.events(kube::kPods)) + std::ssize(objects.events(kube::kNodes));
  std::map<std::string, long> edits;  // by the model's uid
  for (const Objects::Event& event : objects.events(kube::kDeepSeekModels)) {
    const Json& metadata = event.object["metadata"];
    edits[metadata["uid"].get<std::string>()] = metadata["generation"].get<long>();
  }
  for (const auto& [uid, generation] : edits) events += generation;
  if (also_happened) events += also_happened();
  return static_cast<int>(kMostWritesForAnObject * server_.made() + kMostWritesForAnEvent * events);
}

void World::check_end_of(const Json& model) {
  const std::string uid = model["metadata"]["uid"];
  const std::string key = key_of(model);
  const auto expect = [&](const std::string& what, const auto& is, const auto& wanted) {
    if (is == wanted) return;
    breach(key + ": " + what + " is " + Json(is).dump() + ", not " + Json(wanted).dump());
  };
  const auto count = [&](const kube::Resource& resource) {
    return static_cast<int>(std::ranges::count_if(
        server_.objects().all(resource),
        [&](const auto& entry) { return plan::controller_uid(entry.second) == uid; }));
  };
  const int replicas = plan::groups_asked_for(model["spec"]);
  int ready = 0;
  for (const plan::SimulatedPod* const pod : pods_of(model)) {
    ready += label(pod->object, api::kRoleLabel) == api::kRoleLeader && plan::is_ready(pod->object);
  }
  expect("number of ready groups", ready, replicas);
  expect("number of pods", count(kube::kPods),
         replicas * model["spec"]["parallelism"]["tensor"].get<int>());
  expect("number of disruption budgets", count(kube::kPodDisruptionBudgets), replicas);
  expect("number of services", count(kube::kServices), 2);
  expect("number of secrets", count(kube::kSecrets), 1);
  expect("number of autoscalers", count(kube::kAutoscalers),
         model["spec"].value("scaling", Json()).is_object() ? 1 : 0);
  const std::string wanted = replicas == 0 ? "True/ScaledToZero" : "True/AllGroupsReady";
  expect("Ready", condition(model, "Ready"), wanted);
  for (const char* const type : {"Progressing", "Degraded", "Stalled"}) {
    expect(type, condition(model, type), std::string("False/AsWanted"));
  }
  if (static_cast<std::size_t>(count(kube::kControllerRevisions)) > kMostRevisions) {
    breach(key + ": old revisions pile up");
  }
}

}  // namespace dsm::faults
