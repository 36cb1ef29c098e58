#include "operator/plan/budget.h"

#include <algorithm>
#include <tuple>

#include "operator/api/quantity.h"
#include "operator/plan/autoscaler.h"
#include "operator/plan/json_part.h"
#include "operator/plan/schedule.h"

namespace dsm::plan {
namespace {

constexpr const char* kModels = "models";

double amount_in(const Amounts& amounts, const std::string& resource) {
  const auto found = amounts.find(resource);
  return found == amounts.end() ? 0 : found->second;
}

class Division {
 public:
  explicit Division(const api::TenantBudget& limits) : most_models_(limits.models) {
    for (const auto& [resource, quantity] : limits.resources) {
      // A budget that was parsed has readable quantities.
      limits_[resource] = api::milli_of(quantity).value_or(0);
      result_.used[resource] = 0;
    }
  }

  BudgetResult divide(std::vector<BudgetModel> models) {
    std::ranges::sort(models, {}, [](const BudgetModel& m) { return std::tie(m.created, m.key); });
    for (const BudgetModel& model : models) {
      take(model.holds, 1);
      running_ += runs(model) ? 1 : 0;
    }
    for (const BudgetModel& model : models) keep_free(model);
    for (const BudgetModel& model : models) say_room(model);
    std::string first_waiting;
    for (const BudgetModel& model : models) {
      BudgetShare& share = result_.shares[model.key];
      const int before = std::min(model.wanted, model.held);
      share.groups = before;
      grow(model, first_waiting, share);
      const int has = model.there + kept_free_[model.key];
      // What it was granted does not fit any more.
      if (share.short_of.empty() && has < before) share.short_of = missing(model, false);
      const bool waits_for_first = has == 0 && share.groups == before && model.wanted > 0;
      if (first_waiting.empty() && waits_for_first && could_fit(model)) first_waiting = model.key;
    }
    return std::move(result_);
  }

 private:
  static bool runs(const BudgetModel& model) { return model.there > 0 || model.held > 0; }

  void take(const Amounts& amounts, int times) {
    for (auto& [resource, used] : result_.used) used += times * amount_in(amounts, resource);
  }

  // For groups that the model was granted and that are not there yet, or any more.
  void keep_free(const BudgetModel& model) {
    int& kept = kept_free_[model.key];
    while (model.there + kept < model.held && missing(model, false).empty()) {
      ++kept;
      take(model.group, 1);
    }
  }

  void say_room(const BudgetModel& model) {
    Amounts& room = result_.shares[model.key].room;
    for (const auto& [resource, limit] : limits_) {
      room[resource] =
          limit - result_.used[resource] + kept_free_[model.key] * amount_in(model.group, resource);
    }
  }

  void grow(const BudgetModel& model, const std::string& first_waiting, BudgetShare& share) {
    while (share.groups < model.wanted) {
      share.short_of = missing(model, share.groups == 0 && !runs(model));
      if (share.short_of.empty() && !first_waiting.empty()) {
        share.short_of = kModels;
        share.waits_for = first_waiting;
      }
      if (!share.short_of.empty()) return;
      if (share.groups == 0 && !runs(model)) ++running_;
      ++share.groups;
      take(model.group, 1);
    }
  }

  // What there is too little of for one more group; empty: nothing.
  std::string missing(const BudgetModel& model, bool first_group) const {
    if (first_group && most_models_ && running_ >= *most_models_) return kModels;
    for (const auto& [resource, limit] : limits_) {
      const double more = amount_in(model.group, resource);
      if (more > 0 && result_.used.at(resource) + more > limit) return resource;
    }
    return {};
  }

  bool could_fit(const BudgetModel& model) const {
    return (!most_models_ || *most_models_ > 0) &&
           std::ranges::all_of(limits_, [&](const auto& entry) {
             return amount_in(model.group, entry.first) <= entry.second;
           });
  }

  std::optional<int> most_models_;
  Amounts limits_;
  int running_ = 0;                       // models with at least one group
  std::map<std::string, int> kept_free_;  // groups, by the model's key
  BudgetResult result_;
};

}  // namespace

Amounts group_demand(const api::Spec& spec) {
  // As Kubernetes does: what is not requested is what the limit says.
  api::StringMap pod = spec.pod_template.limits;
  for (const auto& [resource, quantity] : spec.pod_template.requests) pod[resource] = quantity;
  pod.emplace("cpu", kDefaultCpu);
  pod.emplace("memory", kDefaultMemory);
  Amounts out;
  for (const auto& [resource, quantity] : pod) {
    out[resource] = api::milli_of(quantity).value_or(0) * spec.pods_per_group();
  }
  // A rank for each accelerator.
  if (const std::string& resource = spec.accelerator.resource; resource != "cpu") {
    out[resource] = std::max(out[resource], spec.parallelism.tensor * 1000.0);
  }
  return out;
}

Amounts pod_demand(const nlohmann::json& pod) {
  Amounts out;
  for (const auto& container : part(pod, "/spec/containers")) {
    nlohmann::json wanted = nlohmann::json::object();
    for (const char* const some : {"/resources/limits", "/resources/requests"}) {
      if (const auto said = part(container, some); said.is_object()) wanted.update(said);
    }
    wanted.emplace("cpu", kDefaultCpu);
    wanted.emplace("memory", kDefaultMemory);
    for (const auto& [resource, quantity] : wanted.items()) {
      out[resource] += api::milli_of(text(quantity)).value_or(0);
    }
  }
  return out;
}

int groups_wanted(const api::Spec& spec, WallTime now) {
  if (!spec.scaling.on()) return spec.replicas;
  api::Spec bounded = spec;
  api::Scaling& scaling = bounded.scaling;
  // With schedules that cannot be read the plan begins nothing and says so.
  const auto bounds =
      bounds_at({scaling.min_replicas, *scaling.max_replicas}, scaling.schedules, now);
  if (bounds) {
    scaling.min_replicas = bounds->bounds.min;
    scaling.max_replicas = bounds->bounds.max;
  }
  return wanted_replicas(bounded);
}

void hold(BudgetModel& model, const Groups& groups, std::optional<int> granted,
          const std::function<const Amounts*(const std::string& revision)>& demand_of) {
  for (const auto& [revision, number] : groups) {
    const Amounts* demand = demand_of(revision);
    for (const auto& [resource, amount] : demand != nullptr ? *demand : model.group) {
      model.holds[resource] += amount;
    }
  }
  model.there = static_cast<int>(groups.size());
  model.held = granted.value_or(model.there);
}

std::string why_less(const std::string& tenant, const api::TenantBudget& limits,
                     const BudgetShare& share, int wanted) {
  if (share.short_of.empty()) return {};
  const std::string so_far =
      std::to_string(share.groups) + " of " + std::to_string(wanted) + " groups may run";
  if (!share.waits_for.empty()) {
    return "tenant " + tenant + ": " + so_far + "; " + share.waits_for +
           ", which is older, waits for room in the budget first";
  }
  const auto quantity = limits.resources.find(share.short_of);
  const std::string limit = quantity != limits.resources.end()
                                ? quantity->second
                                : std::to_string(limits.models.value_or(0));
  return "tenant " + tenant + "'s budget of " + limit + " " + share.short_of +
         " is used up: " + so_far +
         ". It goes on when another model of the tenant makes room, or "
         "the budget is raised";
}

BudgetResult budget(const api::TenantBudget& limits, std::vector<BudgetModel> models) {
  return Division(limits).divide(std::move(models));
}

}  // namespace dsm::plan
