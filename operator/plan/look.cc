#include "operator/plan/look.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/plan/accelerator.h"
#include "operator/plan/autoscaler.h"
#include "operator/plan/json_part.h"
#include "operator/plan/kueue.h"
#include "operator/plan/memory.h"
#include "operator/plan/rollback.h"
#include "operator/plan/schedule.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

// A revision is made at most so often: of edits that come faster only the last one is rolled out.
constexpr Seconds kRevisionEvery{2};

// Looked for once the revisions are known.
std::optional<WallTime> when_settled(const Look& look) {
  if (!look.spec || look.wanted() != nullptr) return std::nullopt;
  std::optional<WallTime> newest;
  for (const auto& [name, revision] : look.revisions) {
    newest = std::max(newest.value_or(revision.created), revision.created);
  }
  const WallTime now = look.observed.now;
  // The API server's clock may be ahead of ours; not for long, or it says nothing.
  if (!newest || *newest + kRevisionEvery <= now || *newest > now + kRevisionEvery) {
    return std::nullopt;
  }
  return *newest + kRevisionEvery;
}

// Groups that a spec which cannot be taken asks for: their number and the bounds of its scaling are
// no part of what is wrong. Its schedules are not followed then: what they have raised stays.
int replicas_of(const json& spec, const api::ModelStatus& before) {
  constexpr long kMost = 1000;  // as in the schema
  const auto number = [&](const char* path) -> std::optional<int> {
    const json value = part(spec, path);
    const long said = value.is_number_integer() ? value.get<long>() : -1;
    return said >= 0 && said <= kMost ? std::optional(static_cast<int>(said)) : std::nullopt;
  };
  const int replicas = number("/replicas").value_or(std::max(1, before.replicas));
  const auto most = number("/scaling/maxReplicas");
  if (!most) return replicas;
  const int least = std::min(number("/scaling/minReplicas").value_or(1), *most);
  const int bounded = std::clamp(replicas, least, *most);
  return part(spec, "/scaling/schedules").empty() ? bounded : std::max(bounded, before.replicas);
}

// Puts the bounds of now in the place of those of the spec.
void apply_schedules(Look& look) {
  api::Scaling& scaling = look.spec->scaling;
  if (!scaling.on()) return;
  const auto now = bounds_at({scaling.min_replicas, *scaling.max_replicas}, scaling.schedules,
                             look.observed.now);
  if (!now) {
    look.mistake = "spec.scaling." + now.error().message;
    look.spec.reset();
    return;
  }
  scaling.min_replicas = now->bounds.min;
  scaling.max_replicas = now->bounds.max;
  look.schedule = now->schedule;
  look.schedule_until = now->until;
}

// As with other objects that Kueue knows, the queue may be named by a label of the object.
void take_queue(const Look& look, api::Spec& spec) {
  std::string& queue = spec.placement.queue_name;
  if (!queue.empty() || !look.observed.config.kueue) return;
  const json labels = part(look.observed.model, "/metadata/labels");
  if (const auto it = labels.find(kQueueLabel); it != labels.end()) queue = text(*it);
}

// The spec's revision, or the one before it when somebody asks for that.
void choose_revision(Look& look) {
  const std::string wanted = look.spec ? api::revision_of(*look.spec) : std::string();
  const auto& tenant = look.observed.tenant;
  const std::vector<std::string> all_allowed;
  look.rollback =
      rollback_of({.request = rollback_request(look.observed.model),
                   .wanted = wanted,
                   .before = look.before,
                   .revisions = look.revisions,
                   .not_allowed = tenant ? tenant->revisions_not_allowed : all_allowed});
  look.revision = look.spec ? wanted : look.before.updated_revision;
  if (!look.rolled_back()) return;
  look.revision = look.rollback->to;
  look.spec = api::with_pod_shape(*look.spec, look.revisions.at(look.revision).spec);
}

void read_spec(const json& spec, Look& look) {
  auto name = api::check_name(look.owner.name);
  look.nameable = name.has_value();
  auto parsed = api::parse_spec(spec);
  if (parsed) take_queue(look, *parsed);
  look.mistake_reason = api::kInvalidSpec;
  if (!name) {
    look.mistake = name.error().message;
  } else if (!parsed) {
    look.mistake = parsed.error().message;
  } else if (auto names = api::check_adapter_names(*parsed, look.owner.name); !names) {
    look.mistake = names.error().message;
  } else if (parsed->image.empty() && default_image(look.observed.config, *parsed).empty()) {
    look.mistake = std::string("spec.image: is missing and the operator has no default") +
                   (parsed->accelerator.gpu() ? " for GPUs; set it, or start the operator with "
                                                "--worker-image-cuda"
                                              : "; set it, or start the operator with "
                                                "--worker-image");
  } else if (!parsed->placement.queue_name.empty() && !look.observed.config.kueue) {
    look.mistake =
        "spec.placement.queueName: the operator may not do what pods in a queue of Kueue need; "
        "remove it, or install the chart with kueue.enabled=true";
  } else if (const auto& tenant = look.observed.tenant; tenant && !tenant->not_allowed.empty()) {
    look.mistake_reason = api::kNotAllowed;
    look.mistake = tenant->not_allowed;
  } else if (const auto memory = memory_of(*parsed); memory && !memory->fits) {
    look.mistake_reason = api::kDoesNotFit;
    look.mistake = memory->sentence;
  } else {
    look.spec = *std::move(parsed);
    apply_schedules(look);
  }
  choose_revision(look);
  look.desired = look.spec ? wanted_replicas(*look.spec) : replicas_of(spec, look.before);
  const auto& tenant = look.observed.tenant;
  look.granted = tenant ? std::min(tenant->groups, look.desired) : look.desired;
}

}  // namespace

const Revision* Look::wanted() const {
  const auto it = revisions.find(revision);
  return it == revisions.end() ? nullptr : &it->second;
}

const Revision* Look::made() const {
  const auto last = revisions.find(before.current_revision);
  return held() && last != revisions.end() ? &last->second : wanted();
}

const WriteFailure* Look::failure(std::string_view kind, std::string_view name) const {
  const auto it = std::ranges::find_if(
      observed.failures, [&](const WriteFailure& f) { return f.kind == kind && f.name == name; });
  return it == observed.failures.end() ? nullptr : &*it;
}

const json* Look::child(std::string_view kind, std::string_view name) const {
  const auto it = std::ranges::find_if(observed.children, [&](const json& object) {
    return text(part(object, "/kind")) == kind && text(part(object, "/metadata/name")) == name;
  });
  return it == observed.children.end() ? nullptr : &*it;
}

Look look_at(const Observed& observed) {
  Look look(observed);
  const json& model = observed.model;
  if (!model.is_object()) {
    look.going = true;
    return look;
  }
  look.owner = {text(part(model, "/metadata/name")), text(part(model, "/metadata/namespace")),
                text(part(model, "/metadata/uid"))};
  const json generation = part(model, "/metadata/generation");
  if (generation.is_number_integer()) look.generation = generation.get<long>();
  look.going = look.owner.uid.empty() || !part(model, "/metadata/deletionTimestamp").is_null();
  look.before = api::parse_status(part(model, "/status"));
  for (const json& child : observed.children) {
    if (text(part(child, "/kind")) != "ControllerRevision") continue;
    if (controller_uid(child) != look.owner.uid) continue;
    if (auto revision = parse_revision(child)) {
      look.revisions.emplace(revision->name, *std::move(revision));
    }
  }
  read_spec(part(model, "/spec"), look);
  look.settles = when_settled(look);
  return look;
}

}  // namespace dsm::plan
