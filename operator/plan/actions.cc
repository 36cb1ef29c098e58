#include "operator/plan/actions.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/accelerator.h"
#include "operator/plan/autoscaler.h"
#include "operator/plan/cold_start.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/disruption.h"
#include "operator/plan/history.h"
#include "operator/plan/new_child.h"
#include "operator/plan/pod.h"
#include "operator/plan/refusals.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

// The other ranks of a group go when its leader should have been gone for this long.
constexpr Seconds kLeaderOverdue{30};
// A child of an earlier model of the same name is about to go.
constexpr Seconds kRetryEarlier{2};

std::string meta(const json& object, const char* key) {
  const json value = object.value(json::json_pointer(std::string("/metadata/") + key), json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

class ChildPlanner {
 public:
  ChildPlanner(const Look& look, Obstacles& obstacles, Plan& plan)
      : look_(look), obstacles_(obstacles), plan_(plan) {}

  // Returns whether the child is there and ours. One that is made now is not there yet: it may be
  // refused, and what needs it must not be made then.
  bool want(json object) {
    const std::string kind = object["kind"];
    const std::string name = object["metadata"]["name"];
    const WriteFailure* failure = look_.failure(kind, name);
    if (failure != nullptr && lasting(*failure) && !obstacles_.refused) {
      obstacles_.refused = refusal_cause(*failure);
    }
    const json* there = look_.child(kind, name);
    const bool ours = there != nullptr && controller_uid(*there) == look_.owner.uid;
    const bool earlier = there != nullptr && !ours && of_earlier_model(*there);
    const bool taken = !ours && (there != nullptr ||
                                 (failure != nullptr && failure->error == ErrorKind::kConflict));
    if (taken && !earlier) {
      obstacles_.conflicts.push_back(kind + " " + name +
                                     " belongs to somebody else; it is left alone. Rename the "
                                     "model, or remove that " +
                                     kind);
    }
    // The name may become free without our hearing of it, so a taken one is simply tried again.
    const Seconds pause = earlier ? kRetryEarlier : kRetryRefused;
    if (taken) look_again_in(plan_, pause);
    if (failure != nullptr && (lasting(*failure) || failure->error == ErrorKind::kConflict)) {
      const WallTime retry = failure->time + pause;
      if (retry > look_.observed.now) {
        look_again_in(plan_, retry - look_.observed.now);
        return ours;
      }
    }
    if (!ours) {
      if (can_change(kind)) {
        write(ChildWrite::Verb::kApply, made_by_apply(std::move(object)));
      } else {
        write(ChildWrite::Verb::kCreate, std::move(object));
      }
    } else if (can_change(kind) && meta(*there, "deletionTimestamp").empty()) {
      mend(std::move(object), *there);
    }
    return ours;
  }

 private:
  void write(ChildWrite::Verb verb, json object) {
    std::string api_version = object["apiVersion"];
    std::string kind = object["kind"];
    std::string name = object["metadata"]["name"];
    plan_.children.push_back(
        {verb, std::move(api_version), std::move(kind), std::move(name), std::move(object)});
  }

  // Secrets and what a revision holds never change: they are POSTed, which needs no right to patch.
  static bool can_change(const std::string& kind) {
    return kind == "Service" || kind == kDisruptionBudget || kind == kPodGroup ||
           kind == "HorizontalPodAutoscaler";
  }

  void mend(json wanted, const json& there) {
    const json::json_pointer selector("/spec/selector");  // a larger one selects less
    const bool same = says_the_same(wanted, there) &&
                      wanted.value(selector, json()) == there.value(selector, json());
    if (same) return;
    wanted["metadata"]["uid"] = meta(there, "uid");
    if (same_port_keys(wanted, there)) return write(ChildWrite::Verb::kApply, std::move(wanted));
    plan_.children.push_back({ChildWrite::Verb::kMerge,
                              wanted["apiVersion"],
                              wanted["kind"],
                              wanted["metadata"]["name"],
                              {{"metadata", {{"uid", meta(there, "uid")}}},
                               {"spec", {{"ports", wanted["spec"]["ports"]}}}}});
  }

  // Left by a model of the same name that was deleted; the garbage collector is about to take it.
  bool of_earlier_model(const json& object) const {
    const json owners = object.value(json::json_pointer("/metadata/ownerReferences"), json());
    return owners.is_array() && std::ranges::any_of(owners, [&](const json& owner) {
             return owner.value("kind", "") == api::kKind &&
                    owner.value("name", "") == look_.owner.name;
           });
  }

  const Look& look_;
  Obstacles& obstacles_;
  Plan& plan_;
};

Revision new_revision(const Look& look, const api::Spec& spec) {
  Revision revision{look.revision, spec,
                    spec.image.empty() ? default_image(look.observed.config, spec) : spec.image, 1};
  for (const auto& [name, other] : look.revisions) {
    revision.number = std::max(revision.number, other.number + 1);
  }
  return revision;
}

void plan_autoscaler(const Look& look, const std::vector<Group>& groups, ChildPlanner& children,
                     Plan& plan) {
  const AutoscalerWish wish = autoscaler_wish(look);
  if (look.spec && wish == AutoscalerWish::kWanted) {
    const bool custom = look.observed.metrics_api.state == MetricsApi::State::kCustom;
    children.want(autoscaler_json(look.owner, look.spec->scaling,
                                  custom ? MetricSource::kObject : MetricSource::kExternal,
                                  cold_start_seconds(look.before, groups)));
    return;
  }
  const std::string name = api::autoscaler(look.owner.name);
  const json* there = look.child("HorizontalPodAutoscaler", name);
  if (wish == AutoscalerWish::kKeep || there == nullptr) return;
  if (controller_uid(*there) != look.owner.uid || !meta(*there, "deletionTimestamp").empty()) {
    return;
  }
  plan.remove.push_back({"autoscaling/v2", "HorizontalPodAutoscaler", name, meta(*there, "uid"),
                         "the model does not scale by load any more"});
}

class PodPlanner {
 public:
  PodPlanner(const PodsToMake& make, Obstacles& obstacles, Plan& plan)
      : look_(make.look), groups_(make.groups), obstacles_(obstacles), plan_(plan) {
    for (const api::AvoidedNode& node : make.avoided) avoid_.push_back(node.name);
    for (const Group& group : groups_) {
      if (group.leaving && group.leaving->asked()) avoid_nodes_of(group);
    }
  }

  // Other ranks must outlive the leader, because it finishes its requests with them: where the
  // leader runs, it alone is deleted first (SIGTERM makes it drain within the pod's grace period),
  // the others when it is gone.
  void clear_away(const GoingGroup& going) {
    const Group& group = groups_[going.group];
    const PodView* leader = group.leader();
    const WallTime now = look_.observed.now;
    if (!going.at_once && leader != nullptr && leader->running) {
      if (!leader->deletion) {
        remove(*leader, going.why);
        plan_.events.push_back({false, "GroupRemoved", "Remove",
                                "removing group " + group.name + ": " + std::string(going.why) +
                                    "; it finishes its requests first"});
        return;
      }
      const WallTime overdue = *leader->deletion + kLeaderOverdue;
      if (now < overdue) return look_again_in(plan_, overdue - now);
    }
    bool first = true;
    for (const PodView* pod : group.pods) {
      if (pod == nullptr || pod->deletion) continue;
      if (lost_gpu(*pod, group.before)) tell_lost_gpu(group, *pod);
      remove(*pod, going.why);
      if (first && leader != nullptr && !leader->deletion) {
        plan_.events.push_back({false, "GroupRemoved", "Remove",
                                "removing group " + group.name + ": " + std::string(going.why)});
      }
      first = false;
    }
  }

  // Makes lost pods again, with the same rank and revision, as soon as their names are free: the
  // survivors keep their weights. One that has failed again and again stays for a while.
  void mend(const Group& group) {
    const auto revision = look_.revisions.find(group.revision);
    if (revision == look_.revisions.end() || group.ended) return;
    for (int i = 0; i < group.want; ++i) {
      const PodView* pod = group.pods[static_cast<std::size_t>(i)];
      if (pod == nullptr) {
        if (make(revision->second, {group.number, i, avoid_, group.bound_together}) &&
            group.served) {
          plan_.events.push_back({false, "PodReplaced", "Mend",
                                  "making pod " + group.name + "-" + std::to_string(i) +
                                      " again; the others of its group keep their weights"});
        }
      } else if (!pod->deletion && (pod->phase == "Failed" || pod->phase == "Succeeded")) {
        const WallTime due = pod->created + mend_wait(group.restarts.recent);
        if (due <= look_.observed.now) {
          remove(*pod, "it has ended");
        } else {
          look_again_in(plan_, due - look_.observed.now);
        }
      } else if (lost_gpu(*pod, group.before)) {
        give_up_gpu(group, *pod);
      } else if (pod->deletion) {
        look_again_in(plan_, *pod->deletion + kStuckAfter + Seconds(1) - look_.observed.now);
      }
    }
  }

  // Returns the names of the groups.
  std::vector<std::string> create(const Revision& revision, int count, ChildPlanner& children) {
    std::vector<std::string> names;
    if (obstacles_.no_pods) return names;
    const int pods = revision.spec.pods_per_group();
    const bool together = binds_together(look_.observed, revision.spec);
    int number = 0;
    for (int made = 0; made < count; ++made, ++number) {
      while (!free(revision, number, pods)) ++number;
      const std::string name = api::group_name(look_.owner.name, revision.name, number);
      if (together && !children.want(pod_group_json(look_.owner, name, pods))) continue;
      names.push_back(name);
      bool any = false;
      for (int i = 0; i < pods; ++i) any = make(revision, {number, i, avoid_, together}) || any;
      if (const auto cause = refusal_of(revision, number, pods)) {
        obstacles_.not_made.push_back({name, revision.name, *cause});
      } else if (any) {
        plan_.events.push_back({false, "GroupCreated", "Create",
                                "making group " + name + ": " + std::to_string(pods) +
                                    (pods == 1 ? " pod" : " pods") + " of revision " +
                                    revision.name});
      }
    }
    return names;
  }

 private:
  void avoid_nodes_of(const Group& group) {
    for (const PodView* pod : group.pods) {
      if (pod == nullptr || pod->node.empty()) continue;
      if (std::ranges::find(avoid_, pod->node) == avoid_.end()) avoid_.push_back(pod->node);
    }
  }

  // Its words are gone with the pod.
  void tell_lost_gpu(const Group& group, const PodView& pod) {
    plan_.events.push_back({true, "PodReplaced", "Mend", lost_gpu_words(pod, group.before)});
  }

  void give_up_gpu(const Group& group, const PodView& pod) {
    const WallTime due = pod.created + mend_wait(group.restarts.recent);
    if (due > look_.observed.now) return look_again_in(plan_, due - look_.observed.now);
    tell_lost_gpu(group, pod);
    remove(pod, "its GPU is lost");
  }

  void remove(const PodView& pod, std::string_view why) {
    plan_.remove.push_back({"v1", "Pod", pod.name, pod.uid, std::string(why)});
  }

  // False when nothing is written: pods cannot work now, the name is not free, or the API server
  // refused this pod a moment ago.
  bool make(const Revision& revision, const PodPlace& place) {
    const std::string name =
        api::pod_name(look_.owner.name, revision.name, place.group, place.index);
    if (obstacles_.no_pods || pod_name_taken(look_.observed, name)) return false;
    if (const WriteFailure* failure = look_.failure("Pod", name)) {
      if (lasting(*failure) && !obstacles_.refused_pod) {
        obstacles_.refused_pod = refusal_cause(*failure);
      }
      if (failure->error == ErrorKind::kConflict) {
        obstacles_.conflicts.push_back("Pod " + name +
                                       " belongs to somebody else; it is left alone. Remove it");
      }
      const WallTime retry = failure->time + kRetryRefused;
      const bool stands = lasting(*failure) || failure->error == ErrorKind::kConflict;
      if (stands && retry > look_.observed.now) {
        look_again_in(plan_, retry - look_.observed.now);
        return false;
      }
    }
    plan_.create_pods.push_back(pod_json(look_.owner, revision, place, look_.observed.config));
    if (look_.observed.tenant)
      as_the_tenant_wants(*look_.observed.tenant, plan_.create_pods.back());
    return true;
  }

  // Of the last try; nullopt: it was not refused.
  std::optional<Cause> refusal_of(const Revision& revision, int number, int pods) const {
    for (int i = 0; i < pods; ++i) {
      const auto name = api::pod_name(look_.owner.name, revision.name, number, i);
      const WriteFailure* failure = look_.failure("Pod", name);
      if (failure != nullptr && lasting(*failure)) return refusal_cause(*failure);
    }
    return std::nullopt;
  }

  static void as_the_tenant_wants(const TenantGrant& tenant, json& pod) {
    if (tenant.keys_required) pod["spec"]["containers"][0]["args"].push_back("--await-keys=true");
    if (!tenant.priority_class.empty()) {
      pod["spec"]["priorityClassName"] = tenant.priority_class;
    }
  }

  // A name that is still going is taken, and so is one that somebody else has.
  bool free(const Revision& revision, int number, int pods) const {
    for (int i = 0; i < pods; ++i) {
      const auto name = api::pod_name(look_.owner.name, revision.name, number, i);
      if (pod_name_taken(look_.observed, name)) return false;
      const WriteFailure* failure = look_.failure("Pod", name);
      if (failure != nullptr && failure->error == ErrorKind::kConflict) return false;
    }
    return true;
  }

  const Look& look_;
  const std::vector<Group>& groups_;
  std::vector<std::string> avoid_;  // nodes
  Obstacles& obstacles_;
  Plan& plan_;
};

// A spec that cannot be read takes no port from the groups that serve.
bool has_grpc(const Look& look) {
  if (look.spec) return look.spec->engine.grpc;
  return std::ranges::any_of(look.revisions,
                             [](const auto& entry) { return entry.second.spec.engine.grpc; });
}

}  // namespace

void look_again_in(Plan& plan, std::chrono::nanoseconds wait) {
  const Millis rounded = std::max(Millis(1), std::chrono::ceil<Millis>(wait));
  if (plan.requeue_after == Millis(0) || rounded < plan.requeue_after) plan.requeue_after = rounded;
}

Obstacles plan_children(const Look& look, const std::vector<Group>& groups, Plan& plan) {
  Obstacles obstacles;
  if (!look.nameable) {
    obstacles.no_pods = true;
    return obstacles;
  }
  ChildPlanner children(look, obstacles, plan);
  children.want(serving_service_json(look.owner, has_grpc(look)));
  const bool names = children.want(ranks_service_json(look.owner));
  const bool token = children.want(token_secret_json(look.owner, look.observed.fresh_token));
  bool revision = true;
  if (look.spec && !look.settles) {
    const Revision* there = look.wanted();
    revision = children.want(
        revision_json(look.owner, there != nullptr ? *there : new_revision(look, *look.spec)));
  }
  plan_autoscaler(look, groups, children, plan);
  for (json& budget : wanted_budgets(look, groups)) children.want(std::move(budget));
  remove_unused_budgets(look, groups, plan);
  plan_history(look, groups, plan);
  const bool needs_names = !look.spec || look.spec->pods_per_group() > 1;
  obstacles.no_pods = !token || !revision || (needs_names && !names);
  return obstacles;
}

void plan_pods(const PodsToMake& make, Obstacles& obstacles, Plan& plan) {
  const RolloutDecision& decision = make.decision;
  PodPlanner pods(make, obstacles, plan);
  for (const GoingGroup& going : decision.going) pods.clear_away(going);
  for (const auto* staying : {&decision.keep, &decision.leaving, &decision.old}) {
    for (const std::size_t i : *staying) pods.mend(make.groups[i]);
  }
  // Without its ControllerRevision a pod could not be made again after the next edit.
  const Revision* revision = make.look.made();
  ChildPlanner children(make.look, obstacles, plan);
  std::vector<std::string> made;
  if (revision != nullptr) made = pods.create(*revision, decision.create, children);
  for (json& group : wanted_pod_groups(make.look, make.groups)) children.want(std::move(group));
  remove_unused_pod_groups(make.look, make.groups, made, plan);
}

}  // namespace dsm::plan
