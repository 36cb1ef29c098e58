#include "operator/plan/tenant.h"

#include <algorithm>
#include <set>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/api/tenant_status.h"
#include "operator/plan/actions.h"
#include "operator/plan/children.h"
#include "operator/plan/new_child.h"
#include "operator/plan/refusals.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

std::string meta(const json& object, const char* key) {
  const json value = object.value(json::json_pointer(std::string("/metadata/") + key), json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::string label_of(const json& object, std::string_view label) {
  const json labels = object.value(json::json_pointer("/metadata/labels"), json());
  return labels.is_object() ? labels.value(std::string(label), std::string()) : std::string();
}

// What stands in the way, the first that a person has to mend in front.
struct Problem {
  int rank;
  std::string_view reason;
  std::string message;
};

class TenantPlanner {
 public:
  explicit TenantPlanner(const TenantObserved& observed) : o_(observed) {}

  TenantPlan plan() {
    const bool there = o_.tenant != nullptr && !o_.tenant->going;
    if (!there) {
      for (const json& ns : o_.namespaces) release(ns);
      return std::move(plan_);
    }
    if (!o_.tenant->spec) {
      // With a wrong spec nothing is begun and nothing given up.
      problems_.push_back({0, api::kInvalidSpec, o_.tenant->mistake});
    } else {
      for (const std::string& name : o_.tenant->spec->namespaces) wall_in(name);
      want_priority_class();
      let_go();
      for (const std::string& mistake : o_.key_mistakes) {
        problems_.push_back({5, api::kInvalidKeys, mistake});
      }
    }
    report();
    return std::move(plan_);
  }

 private:
  const json* namespace_of(std::string_view name) const {
    const auto at = std::ranges::find_if(o_.namespaces,
                                         [&](const json& ns) { return meta(ns, "name") == name; });
    return at == o_.namespaces.end() ? nullptr : &*at;
  }

  void wall_in(const std::string& name) {
    const json* ns = namespace_of(name);
    const std::size_t before = open_ends();
    if (name == o_.config.operator_namespace) {
      problems_.push_back({0, api::kInvalidSpec,
                           "spec.namespaces: the operator itself is in " + name +
                               ", which its walls would cut off; name another"});
    } else if (const auto other = o_.owned_by_other.find(name); other != o_.owned_by_other.end()) {
      problems_.push_back({1, api::kNamespaceOwnedByOther,
                           "namespace " + name + " is that of tenant " + other->second +
                               ", which is older; take it out of one of the two"});
    } else if (ns == nullptr || !meta(*ns, "deletionTimestamp").empty()) {
      problems_.push_back(
          {2, api::kNamespaceMissing,
           "namespace " + name +
               (ns == nullptr ? " is not there; make it" : " is being deleted; make it again")});
    } else {
      held_.insert(name);
      apply_labels(*ns, namespace_labels(*o_.tenant));
      for (json& object : tenant_objects(*o_.tenant, name, o_.config)) want(std::move(object));
    }
    if (open_ends() == before) ++namespaces_ready_;
  }

  std::size_t open_ends() const {
    return problems_.size() + plan_.writes.size() + plan_.remove.size();
  }

  // Only ours are said, so that those of others stay.
  void apply_labels(const json& ns, json wanted) {
    const json there = ns.value(json::json_pointer("/metadata/labels"), json::object());
    if (says_the_same(wanted, there)) return;
    write(
        ChildWrite::Verb::kApply,
        {{"apiVersion", "v1"},
         {"kind", "Namespace"},
         {"metadata",
          {{"name", meta(ns, "name")}, {"uid", meta(ns, "uid")}, {"labels", std::move(wanted)}}}});
  }

  void release(const json& ns) {
    if (label_of(ns, api::kTenantLabel) != o_.name || !meta(ns, "deletionTimestamp").empty()) {
      return;
    }
    write(ChildWrite::Verb::kApply,
          {{"apiVersion", "v1"},
           {"kind", "Namespace"},
           {"metadata", {{"name", meta(ns, "name")}, {"uid", meta(ns, "uid")}}}});
  }

  void want_priority_class() {
    if (o_.tenant->spec->priority.value) want(priority_class_json(*o_.tenant));
  }

  void want(json object) {
    const std::string kind = object["kind"];
    const std::string name = object_name(object);
    wanted_.insert(kind + " " + name);
    const auto there = std::ranges::find_if(o_.children, [&](const json& child) {
      return child.value("kind", "") == kind && object_name(child) == name;
    });
    if (there == o_.children.end())
      return write(ChildWrite::Verb::kApply, made_by_apply(std::move(object)));
    if (controller_uid(*there) != o_.tenant->uid) {
      look_again_in(kRetryRefused);
      problems_.push_back(
          {3, api::kNameConflict,
           kind + " " + name + " belongs to somebody else; it is left alone. Remove it"});
      return;
    }
    if (!meta(*there, "deletionTimestamp").empty()) return look_again_in(Seconds(2));
    const Match match = compare(object, *there);
    if (match == Match::kImmutable) {
      // It is made again once it is gone.
      plan_.remove.push_back(
          {kind, meta(*there, "namespace"), meta(*there, "name"), meta(*there, "uid")});
    } else if (json patch = quota_patch(object, *there); !patch.is_null()) {
      patch["metadata"]["uid"] = meta(*there, "uid");
      write(ChildWrite::Verb::kMerge, std::move(patch));
    } else if (match == Match::kDiffers) {
      object["metadata"]["uid"] = meta(*there, "uid");
      write(ChildWrite::Verb::kApply, std::move(object));
    }
  }

  // What was refused a moment ago is not tried again at once.
  void write(ChildWrite::Verb verb, json object) {
    const std::string kind = object["kind"];
    const std::string name = object_name(object);
    const auto failure = std::ranges::find_if(o_.failures, [&](const WriteFailure& f) {
      return f.kind == kind && f.name == name && lasting(f);
    });
    if (failure != o_.failures.end()) {
      problems_.push_back(
          {4, api::kWriteRefused,
           "the API server refuses " + kind + " " + name + ": " + failure->message});
      const WallTime retry = failure->time + kRetryRefused;
      if (retry > o_.now) return look_again_in(retry - o_.now);
    }
    plan_.writes.push_back(
        {verb, object["apiVersion"], kind, object["metadata"]["name"], std::move(object)});
  }

  // Namespaces and objects that the spec says nothing of any more.
  void let_go() {
    for (const json& ns : o_.namespaces) {
      if (!held_.contains(meta(ns, "name"))) release(ns);
    }
    for (const json& child : o_.children) {
      const std::string kind = child.value("kind", "");
      if (wanted_.contains(kind + " " + object_name(child)) ||
          controller_uid(child) != o_.tenant->uid || !meta(child, "deletionTimestamp").empty()) {
        continue;
      }
      plan_.remove.push_back(
          {kind, meta(child, "namespace"), meta(child, "name"), meta(child, "uid")});
    }
  }

  void look_again_in(std::chrono::nanoseconds wait) {
    const Millis rounded = std::max(Millis(1), std::chrono::ceil<Millis>(wait));
    if (plan_.requeue_after == Millis(0) || rounded < plan_.requeue_after) {
      plan_.requeue_after = rounded;
    }
  }

  void report() {
    const json said = o_.tenant->object.value("status", json());
    api::TenantStatus status = api::parse_tenant_status(said);
    const json generation =
        o_.tenant->object.value(json::json_pointer("/metadata/generation"), json());
    status.observed_generation = generation.is_number_integer() ? generation.get<long>() : 0;
    status.namespaces =
        std::to_string(namespaces_ready_) + "/" + std::to_string(o_.tenant->namespaces.size());
    status.models = o_.usage.models;
    status.waiting_models = o_.usage.waiting;
    status.used = o_.usage.resources;
    set_conditions(status);
    const json wanted = api::to_json(status);
    if (wanted != api::to_json(api::parse_tenant_status(said))) plan_.status = wanted;
  }

  void set_conditions(api::TenantStatus& status) {
    std::ranges::stable_sort(problems_, {}, &Problem::rank);
    api::Condition ready{.type = std::string(api::kReady),
                         .status = api::Truth::kTrue,
                         .observed_generation = status.observed_generation,
                         .last_transition = "",
                         .reason = std::string(api::kAllNamespacesReady),
                         .message = "all namespaces are as the tenant wants them"};
    const std::size_t to_do = plan_.writes.size() + plan_.remove.size();
    if (!problems_.empty()) {
      ready.status = api::Truth::kFalse;
      ready.reason = problems_.front().reason;
      ready.message.clear();
      for (const Problem& problem : problems_) {
        if (problem.reason != problems_.front().reason) break;
        ready.message += (ready.message.empty() ? "" : ". ") + problem.message;
      }
      ready.message.resize(std::min<std::size_t>(ready.message.size(), 4000));
    } else if (to_do > 0) {
      ready.status = api::Truth::kUnknown;
      ready.reason = api::kApplying;
      ready.message = std::to_string(to_do) + " objects are being written";
    }
    api::Condition stalled = ready;
    stalled.type = api::kStalled;
    stalled.status = problems_.empty() ? api::Truth::kFalse : api::Truth::kTrue;
    if (problems_.empty()) {
      stalled.reason = api::kAsWanted;
      stalled.message = "nothing waits for a person";
    }
    api::set_condition(status.conditions, std::move(ready), o_.now);
    api::set_condition(status.conditions, std::move(stalled), o_.now);
  }

  const TenantObserved& o_;
  TenantPlan plan_;
  std::vector<Problem> problems_;
  std::set<std::string> held_;    // namespaces behind its walls
  std::set<std::string> wanted_;  // "Kind namespace/name"
  int namespaces_ready_ = 0;
};

}  // namespace

std::string object_name(const json& object) {
  return meta(object, "namespace") + "/" + meta(object, "name");
}

TenantPlan plan_tenant(const TenantObserved& observed) {
  return TenantPlanner(observed).plan();
}

}  // namespace dsm::plan
