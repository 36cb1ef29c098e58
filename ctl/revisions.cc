#include "ctl/revisions.h"

#include <algorithm>

#include "ctl/objects.h"
#include "operator/api/names.h"
#include "operator/api/status.h"
#include "operator/plan/rollback.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

constexpr const char* kRestartedAt = "kubectl.kubernetes.io/restartedAt";

// The revision that the spec asks for; empty where the spec is wrong.
std::string wanted_revision(const json& model) {
  const auto spec = api::parse_spec(part(model, "/spec"));
  return spec ? api::revision_of(*spec) : std::string();
}

// The part of the spec that shapes pods. Of a spec that is wrong, everything that is wrong or
// shapes pods: each top-level field is tried in a spec that is right.
json shaping_part(const json& spec, const api::Spec& right) {
  if (const auto parsed = api::parse_spec(spec)) return api::pod_shape(*parsed);
  json out = json::object();
  for (const auto& [key, value] : spec.items()) {
    json trial = api::pod_shape(right);
    trial[key] = value;
    const auto parsed = api::parse_spec(trial);
    if (!parsed || api::pod_shape(*parsed) != api::pod_shape(right)) out[key] = value;
  }
  return out;
}

const KeptRevision* find(const std::vector<KeptRevision>& kept, const std::string& name) {
  const auto it =
      std::ranges::find_if(kept, [&](const KeptRevision& k) { return k.revision.name == name; });
  return it == kept.end() ? nullptr : &*it;
}

std::string names(const std::vector<KeptRevision>& kept) {
  std::string text;
  for (const KeptRevision& k : kept) text += (text.empty() ? "" : ", ") + k.revision.name;
  return text.empty() ? "none" : text;
}

Result<const KeptRevision*> choose(const json& model, const std::vector<KeptRevision>& kept,
                                   const std::string& wanted, const std::string& to) {
  if (!to.empty()) {
    if (const KeptRevision* named = find(kept, to)) return named;
    return fail(ErrorKind::kInvalid,
                "--to: there is no revision \"" + to + "\"; there are: " + names(kept));
  }
  std::vector<const plan::Revision*> all;
  all.reserve(kept.size());
  for (const KeptRevision& k : kept) all.push_back(&k.revision);
  const std::string serving = text_at(model, "/status/currentRevision");
  const plan::Revision* before = plan::revision_before(wanted, serving, all);
  if (before != nullptr) return find(kept, before->name);
  return fail(ErrorKind::kInvalid, "there is no other revision to go back to");
}

// A patch with it meets this model and not another one of the name.
json patch_of(const json& model, json spec) {
  return {{"metadata", {{"uid", uid_of(model)}}}, {"spec", std::move(spec)}};
}

}  // namespace

std::vector<KeptRevision> kept_revisions(const json& model, const std::vector<json>& objects) {
  std::vector<KeptRevision> kept;
  for (const json& object : objects) {
    if (plan::controller_uid(object) != uid_of(model)) continue;
    if (auto revision = plan::parse_revision(object)) {
      kept.push_back(
          {*std::move(revision), from_rfc3339(text_at(object, "/metadata/creationTimestamp"))});
    }
  }
  std::ranges::sort(kept, std::greater<>(),
                    [](const KeptRevision& k) { return k.revision.number; });
  return kept;
}

std::string history_text(const json& model, const std::vector<KeptRevision>& kept, WallTime now,
                         const Style& style) {
  const std::string wanted = wanted_revision(model);
  const std::string serving = text_at(model, "/status/currentRevision");
  const bool back = part(model, "/status/rollback/active") == json(true);
  const std::string from = back ? text_at(model, "/status/rollback/from") : "";
  std::vector<std::vector<std::string>> rows = {
      {"REVISION", "NUMBER", "AGE", "IS", "IMAGE", "GOING BACK CHANGES"}};
  for (const KeptRevision& k : kept) {
    std::string is;
    if (k.revision.name == wanted) is = "wanted";
    if (k.revision.name == from) is += is.empty() ? "rolled back" : ", rolled back";
    if (k.revision.name == serving) is += is.empty() ? "serving" : ", serving";
    std::string differences;
    const json target = api::pod_shape(k.revision.spec);
    for (const Change& change :
         changes(shaping_part(part(model, "/spec"), k.revision.spec), target)) {
      differences += (differences.empty() ? "" : "; ") + to_text(change);
    }
    rows.push_back({k.revision.name, std::to_string(k.revision.number), age_text(k.made, now),
                    is.empty() ? "-" : is, printable(k.revision.image),
                    differences.empty() ? "-" : differences});
  }
  return table(rows, style);
}

Result<Rollback> roll_back(const json& model, const std::vector<KeptRevision>& kept,
                           const std::string& to) {
  Rollback out;
  out.from = wanted_revision(model);
  const auto chosen = choose(model, kept, out.from, to);
  if (!chosen) return std::unexpected(chosen.error());
  const plan::Revision& target = (*chosen)->revision;
  out.to = target.name;
  if (out.to == out.from) {
    return fail(ErrorKind::kConflict, "revision " + out.to + " is what the spec asks for already");
  }
  const json& spec = part(model, "/spec");
  const json now = shaping_part(spec, target.spec);
  const json wanted = api::pod_shape(target.spec);
  out.changes = changes(now, wanted);
  const json patch = merge_diff(now, wanted);
  json after = spec;
  after.merge_patch(patch);
  const auto parsed = api::parse_spec(after);
  if (!parsed) {
    return fail(ErrorKind::kInvalid,
                "also after the rollback the spec would be wrong: " + parsed.error().message);
  }
  if (api::revision_of(*parsed) != out.to) {
    return fail(ErrorKind::kInvalid, "revision " + out.to +
                                         " was made by another release and cannot be made again by "
                                         "this one; edit the spec instead");
  }
  out.patch = patch_of(model, patch);
  return out;
}

Result<json> keep_spec_patch(const json& model, WallTime now) {
  const api::ModelStatus status = api::parse_status(part(model, "/status"));
  if (status.rollback && status.rollback->active) {
    return fail(ErrorKind::kConflict,
                "revision " + status.rollback->from + " is rolled back already; --undo ends that");
  }
  const json& generation = part(model, "/metadata/generation");
  if (status.updated_revision.empty() || generation != json(status.observed_generation)) {
    return fail(ErrorKind::kInvalid,
                "the operator has not looked at the last change of the spec yet; try again");
  }
  const std::string value = status.updated_revision + "@" + to_rfc3339(now);
  return json{{"metadata",
               {{"uid", uid_of(model)},
                {"annotations", {{std::string(api::kRollbackAnnotation), value}}}}}};
}

json undo_patch(const json& model) {
  if (plan::rollback_request(model).empty()) return json();
  return {{"metadata",
           {{"uid", uid_of(model)},
            {"annotations", {{std::string(api::kRollbackAnnotation), nullptr}}}}}};
}

json restart_patch(const json& model, WallTime now) {
  return patch_of(model, {{"template", {{"annotations", {{kRestartedAt, to_rfc3339(now)}}}}}});
}

json pause_patch(const json& model, bool paused) {
  return patch_of(model, {{"rollout", {{"paused", paused ? json(true) : json()}}}});
}

json sleep_patch(const json& model, bool sleep) {
  return patch_of(model, {{"sleep", sleep ? json(true) : json()}});
}

bool is_paused(const json& model) {
  return part(model, "/spec/rollout/paused") == json(true);
}

}  // namespace dsm::ctl
