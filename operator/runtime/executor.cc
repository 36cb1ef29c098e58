#include "operator/runtime/executor.h"

#include "operator/plan/new_child.h"
#include "operator/plan/news.h"

namespace dsm::runtime {
namespace {

std::string text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

// One plan under way.
struct Executor::Run {
  const Json& model;
  std::string ns;
  std::string name;
  std::string key;
  Outcome outcome;
  // The API server does not answer or the lease is lost: the rest would only wait for time-outs.
  bool cut_off = false;
};

const kube::Resource* resource_of(const std::string& kind) {
  for (const kube::Resource* resource :
       {&kube::kPods, &kube::kServices, &kube::kSecrets, &kube::kControllerRevisions,
        &kube::kAutoscalers, &kube::kPodDisruptionBudgets, &kube::kPodGroups}) {
    if (kind == resource->kind) return resource;
  }
  return nullptr;
}

Executor::Executor(kube::Client& client, kube::EventRecorder& events, Store& store,
                   Secrets& secrets, Failures& failures, Logger log)
    : client_(client),
      events_(events),
      store_(store),
      secrets_(secrets),
      failures_(failures),
      log_(std::move(log)) {}

Outcome Executor::run(const plan::Plan& plan, const Json& model) {
  const Json metadata = model.value("metadata", Json::object());
  Run run{model, text(metadata, "namespace"), text(metadata, "name"), "", {}, false};
  run.key = run.ns + "/" + run.name;
  for (const plan::Removal& removal : plan.remove) {
    if (!run.cut_off) remove(removal, run);
  }
  for (const plan::Release& held : plan.release) {
    if (!run.cut_off) release(held, run);
  }
  for (const plan::ChildWrite& child : plan.children) {
    if (!run.cut_off) write(child, run);
  }
  for (const Json& pod : plan.create_pods) {
    if (!run.cut_off) create_pod(pod, run);
  }
  if (plan.status && !run.cut_off) write_status(*plan.status, run);
  for (const plan::EventNote& note : plan::folded(plan.events)) {
    if (run.cut_off) break;
    events_.record(model, {note.warning, note.reason, note.action, note.message});
    ++run.outcome.writes;
  }
  run.outcome.cut_off = run.cut_off;
  return run.outcome;
}

void Executor::failed(Run& run, const std::string& kind, const std::string& name,
                      const kube::ApiError& error) {
  if (!run.outcome.error) run.outcome.error = error;
  run.cut_off = error.code == 0;
  // Held back by the lease: nothing that a user could do about it.
  if (error.kind == ErrorKind::kCancelled) return;
  log_.info("write failed",
            {{"model", run.key}, {"kind", kind}, {"name", name}, {"error", error.message}});
  failures_.record(run.key, {kind, name, error.kind, error.message, client_.clock().wall_now()});
}

void Executor::keep(const Run& run, const std::string& kind, Json object) {
  // Answers name their kind; if one does not, the request said it.
  if (!object.contains("kind")) object["kind"] = kind;
  if (kind == kube::kPods.kind) return store_.pods.put(std::move(object));
  if (kind == kube::kServices.kind) return store_.services.put(std::move(object));
  if (kind == kube::kControllerRevisions.kind) return store_.revisions.put(std::move(object));
  if (kind == kube::kAutoscalers.kind) return store_.autoscalers.put(std::move(object));
  if (kind == kube::kPodDisruptionBudgets.kind) return store_.budgets.put(std::move(object));
  if (kind == kube::kPodGroups.kind) return store_.pod_groups.put(std::move(object));
  if (kind == kube::kSecrets.kind) return secrets_.put(run.key, std::move(object));
}

void Executor::erase(const kube::Resource& resource, const std::string& key,
                     const std::string& uid) {
  if (resource == kube::kPods) return store_.pods.erase(key, uid);
  if (resource == kube::kServices) return store_.services.erase(key, uid);
  if (resource == kube::kControllerRevisions) return store_.revisions.erase(key, uid);
  if (resource == kube::kAutoscalers) return store_.autoscalers.erase(key, uid);
  if (resource == kube::kPodDisruptionBudgets) return store_.budgets.erase(key, uid);
  if (resource == kube::kPodGroups) return store_.pod_groups.erase(key, uid);
}

void Executor::remove(const plan::Removal& removal, Run& run) {
  const kube::Resource* resource = resource_of(removal.kind);
  if (resource == nullptr) return;
  kube::DeleteOptions options;
  options.uid = removal.uid;
  options.propagation = "Background";
  kube::ApiResult<Json> answer = client_.remove(*resource, run.ns, removal.name, options);
  const std::string key = run.ns + "/" + removal.name;
  const bool is_pod = resource == &kube::kPods;
  if (answer) {
    ++run.outcome.writes;
    failures_.forget(run.key, removal.kind, removal.name);
    log_.info("removed", {{"model", run.key},
                          {"kind", removal.kind},
                          {"name", removal.name},
                          {"reason", removal.reason}});
    // A pod stays for its grace period, anything else is gone when the answer is a Status.
    if (is_pod && text(*answer, "kind") == kube::kPods.kind) {
      store_.pods.mark(std::move(*answer));
    } else {
      erase(*resource, key, removal.uid);
    }
    return;
  }
  // Gone, or another object has the name now: this one is not there any more.
  const ErrorKind kind = answer.error().kind;
  if (kind == ErrorKind::kNotFound || kind == ErrorKind::kConflict) {
    erase(*resource, key, removal.uid);
    return failures_.forget(run.key, removal.kind, removal.name);
  }
  failed(run, removal.kind, removal.name, answer.error());
}

// The server compares the uid; an answer without finalizers is that of a pod that is gone.
void Executor::release(const plan::Release& held, Run& run) {
  const Json patch = {{"metadata",
                       {{"uid", held.uid},
                        {"$deleteFromPrimitiveList/finalizers", Json::array({held.finalizer})}}}};
  kube::ApiResult<Json> answer = client_.strategic_patch(kube::kPods, run.ns, held.pod, patch);
  const std::string key = run.ns + "/" + held.pod;
  if (answer) {
    ++run.outcome.writes;
    log_.info("released", {{"model", run.key}, {"pod", held.pod}});
    const Json left = answer->value("metadata", Json::object()).value("finalizers", Json::array());
    if (!left.empty()) return store_.pods.mark(std::move(*answer));
    return store_.pods.erase(key, held.uid);
  }
  const ErrorKind kind = answer.error().kind;
  // For a pod with another uid the patch is a change of a field that cannot change.
  if (kind == ErrorKind::kNotFound || kind == ErrorKind::kInvalid) {
    return store_.pods.erase(key, held.uid);
  }
  if (kind != ErrorKind::kConflict) {
    return failed(run, std::string(kube::kPods.kind), held.pod, answer.error());
  }
  // Somebody else wrote at the same moment.
  if (!run.outcome.error) run.outcome.error = answer.error();
}

void Executor::write(const plan::ChildWrite& child, Run& run) {
  const kube::Resource* resource = resource_of(child.kind);
  if (resource == nullptr) return;
  using Verb = plan::ChildWrite::Verb;
  const bool create = child.verb == Verb::kCreate;
  kube::ApiResult<Json> answer =
      create ? client_.create(*resource, run.ns, child.object)
      : child.verb == Verb::kMerge
          ? client_.merge_patch(*resource, run.ns, child.name, child.object)
          : client_.apply(*resource, run.ns, child.name, child.object);
  if (!answer) return failed(run, child.kind, child.name, answer.error());
  ++run.outcome.writes;
  log_.info(plan::makes(child) ? "created" : "applied",
            {{"model", run.key}, {"kind", child.kind}, {"name", child.name}});
  failures_.forget(run.key, child.kind, child.name);
  keep(run, child.kind, std::move(*answer));
}

void Executor::create_pod(const Json& pod, Run& run) {
  const std::string name = text(pod.value("metadata", Json::object()), "name");
  kube::ApiResult<Json> answer = client_.create(kube::kPods, run.ns, pod);
  if (!answer) return failed(run, std::string(kube::kPods.kind), name, answer.error());
  ++run.outcome.writes;
  log_.info("created", {{"model", run.key}, {"kind", "Pod"}, {"name", name}});
  failures_.forget(run.key, std::string(kube::kPods.kind), name);
  keep(run, std::string(kube::kPods.kind), std::move(*answer));
}

void Executor::write_status(const Json& status, Run& run) {
  const Json metadata = run.model.value("metadata", Json::object());
  const Json body = {
      {"apiVersion", kube::kDeepSeekModels.api_version()},
      {"kind", kube::kDeepSeekModels.kind},
      {"metadata", {{"name", run.name}, {"namespace", run.ns}, {"uid", text(metadata, "uid")}}},
      {"status", status}};
  kube::ApiResult<Json> answer =
      client_.apply_status(kube::kDeepSeekModels, run.ns, run.name, body);
  if (answer) {
    ++run.outcome.writes;
    run.outcome.status_written = true;
    run.outcome.overtaken = !same_but_for_status(trimmed(*answer), run.model);
    store_.models.put(std::move(*answer));
    return;
  }
  if (answer.error().kind == ErrorKind::kNotFound) return;  // deleted meanwhile
  if (answer.error().kind != ErrorKind::kCancelled) {
    log_.info("status not written", {{"model", run.key}, {"error", answer.error().message}});
  }
  if (!run.outcome.error) run.outcome.error = answer.error();
  run.cut_off = answer.error().code == 0;
}

}  // namespace dsm::runtime
