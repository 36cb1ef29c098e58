#include "operator/runtime/tenant_controller.h"

#include <algorithm>

#include "operator/api/names.h"
#include "operator/plan/new_child.h"
#include "operator/runtime/work_loop.h"

namespace dsm::runtime {
namespace {

std::string namespace_of(const std::string& key) {
  return key.substr(0, key.find('/'));
}

std::string meta(const Json& object, const char* key) {
  const Json value = object.value(Json::json_pointer(std::string("/metadata/") + key), Json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

// Of what a TenantPlan writes.
const kube::Resource* tenant_resource(const std::string& kind) {
  if (kind == kube::kNamespaces.kind) return &kube::kNamespaces;
  const auto found = std::ranges::find(kTenantKinds, kind, &kube::Resource::kind);
  return found == kTenantKinds.end() ? nullptr : *found;
}

}  // namespace

TenantController::TenantController(TenantOptions options, kube::Client& reads, kube::Client& writes,
                                   Store& models, LookAtModel look_at, Logger log)
    : options_(std::move(options)),
      reads_(reads),
      writes_(writes),
      clock_(writes.clock()),
      models_(models),
      look_at_(std::move(look_at)),
      log_(std::move(log)),
      budgets_(models_, store_, clock_),
      doubts_(reads, models, store_,
              {.model_changed = look_at_,
               .tenant_changed = [this](const std::string& name) { tenant_changed(name); },
               .pods_listed = [this](const std::vector<Json>& pods) { budgets_.learn(pods); }}),
      queue_(clock_, options_.metrics->queue_observer()) {}

TenantController::~TenantController() {
  stop();
}

kube::Watcher::Handler TenantController::into(
    std::function<Changed(std::vector<kube::WatchEvent>)> take,
    std::function<void(const std::string&)> on_change) {
  return [this, take = std::move(take),
          on_change = std::move(on_change)](std::vector<kube::WatchEvent> events) {
    const bool knew = store_.knows_tenants();
    const bool before = store_.synced();
    for (const std::string& key : take(std::move(events))) {
      if (!key.empty()) on_change(key);
    }
    // Looks that came too early were put off.
    if (!knew && store_.knows_tenants()) {
      for (const std::string& model : models_.models.keys()) look_at_(model);
    }
    if (!before && store_.synced()) {
      for (const std::string& name : store_.names()) queue_.add(name);
    }
  };
}

std::vector<Feed> TenantController::feeds() {
  const auto to = [](auto& cache) {
    return [&cache](std::vector<kube::WatchEvent> events) { return cache.take(std::move(events)); };
  };
  std::vector<Feed> feeds = {
      {kube::kDeepSeekTenants, "",
       into(to(store_.tenants), [this](const std::string& name) { tenant_changed(name); })},
      {kube::kNamespaces, "",
       into(to(store_.namespaces), [this](const std::string& ns) { namespace_changed(ns); })},
      {kube::kSecrets, "",
       into(to(store_.keys), [this](const std::string& ns) { keys_changed(ns); }),
       "metadata.name=" + std::string(api::kApiKeysSecret)}};
  for (std::size_t i = 0; i < kTenantKinds.size(); ++i) {
    feeds.push_back(
        {*kTenantKinds[i], std::string(api::kTenantLabel),
         into(to(store_.children[i]), [this](const std::string& name) { queue_.add(name); })});
  }
  return feeds;
}

bool TenantController::step() {
  const auto name = queue_.try_take();
  if (!name) return false;
  look_at(queue_, *options_.metrics, clock_, log_, "tenant", *name,
          [this](const std::string& taken) { return reconcile(taken); });
  return true;
}

void TenantController::start() {
  for (Feed& feed : feeds()) {
    watchers_.push_back(std::make_unique<kube::Watcher>(
        reads_, kube::WatcherOptions{feed.resource, "", feed.label_selector, feed.field_selector},
        std::move(feed.take), log_));
  }
  worker_ = std::jthread([this](const std::stop_token& stop) {
    work(
        queue_, *options_.metrics, clock_, log_, "tenant",
        [this](const std::string& name) { return reconcile(name); }, stop);
  });
}

void TenantController::stop() {
  worker_.request_stop();
  for (const auto& watcher : watchers_) watcher->request_stop();
  if (worker_.joinable()) worker_.join();
  watchers_.clear();
}

void TenantController::lead(bool leading) {
  if (leading) {
    doubts_.begin();
    budgets_.begin();
  }
  leading_ = leading;
  options_.metrics->leading(leading);
  if (!leading) return;
  for (const std::string& name : store_.names()) queue_.add(name);
}

void TenantController::update_metrics() {
  options_.metrics->update(queue_);
  options_.metrics->objects("DeepSeekTenant", store_.tenants.size());
  options_.metrics->objects("Namespace", store_.namespaces.size());
}

void TenantController::look_at_models_in(const std::string& ns) {
  for (const std::string& model : models_.models.keys_in(ns)) look_at_(model);
}

// Namespaces may have gone from one tenant to another, or to none.
void TenantController::tenant_changed(const std::string& name) {
  for (const std::string& each : store_.names()) queue_.add(each);
  queue_.add(name);
  for (const std::string& model : models_.models.keys()) look_at_(model);
}

void TenantController::namespace_changed(const std::string& ns) {
  look_at_models_in(ns);
  if (const auto there = store_.namespaces.find("/" + ns)) {
    if (const std::string name = labelled_tenant(*there); !name.empty()) queue_.add(name);
  }
  for (const auto& tenant : store_.tenants.all()) {
    if (std::ranges::find(tenant->namespaces, ns) != tenant->namespaces.end()) {
      queue_.add(tenant->name);
    }
  }
}

void TenantController::keys_changed(const std::string& ns) {
  const plan::TenantPointer tenant = store_.tenant_of(ns);
  if (!tenant) return;
  look_at_models_in(ns);
  queue_.add(tenant->name);
}

void TenantController::model_changed(const std::string& model_key) {
  const plan::TenantPointer tenant = store_.tenant_of(namespace_of(model_key));
  if (tenant) queue_.add_after(tenant->name, kCountPause);
}

void TenantController::model_gone(const std::string& model_key) {
  budgets_.forget(model_key);
  model_changed(model_key);
}

std::optional<plan::KeyMessage> TenantController::keys_for(const std::string& ns,
                                                           const std::string& token) const {
  const plan::TenantPointer tenant = store_.tenant_of(ns);
  if (!tenant) {
    // Nothing is opened before it is certain that the tenant is gone: then the label goes, too.
    const auto there = store_.namespaces.find("/" + ns);
    if (!there || !labelled_tenant(*there).empty()) return std::nullopt;
  }
  const auto keys = store_.keys.find(ns + "/" + std::string(api::kApiKeysSecret));
  return plan::key_message(tenant.get(), keys.get(), token);
}

Result<Millis> TenantController::reconcile(const std::string& name) {
  const auto resync = std::chrono::duration_cast<Millis>(kResync);
  if (!store_.synced()) return Millis(0);  // every name comes again once the caches are full
  if (!leading_) return store_.find(name) ? resync : Millis(0);
  if (Status known = doubts_.settle_tenants(); !known) return std::unexpected(known.error());
  plan::TenantObserved observed = observe(name);
  if (observed.tenant) {
    const TenantBudgets::Account account = budgets_.account(*observed.tenant);
    observed.usage = account.usage;
    for (const std::string& model : account.may_grow) look_at_(model);
  }
  const plan::TenantPlan plan = plan::plan_tenant(observed);
  if (!plan.quiet()) {
    if (!observed.tenant) {
      // Walls come down only when the API server itself says that the tenant is gone.
      const auto there = reads_.get(kube::kDeepSeekTenants, "", name);
      if (there) return fail(ErrorKind::kTransient, "the tenant is there, the cache is behind");
      if (there.error().kind != ErrorKind::kNotFound) return std::unexpected<Error>(there.error());
    }
    if (auto error = execute(name, plan)) return std::unexpected(std::move(*error));
    // The answers are in the store already, so the watch brings no news of them.
    if (!plan.writes.empty() || !plan.remove.empty()) queue_.add(name);
  }
  if (!observed.tenant) {
    failures_.forget_model(name);
    return Millis(0);
  }
  return plan.requeue_after.count() > 0 ? std::min(plan.requeue_after, resync) : resync;
}

plan::TenantObserved TenantController::observe(const std::string& name) {
  plan::TenantObserved observed;
  observed.name = name;
  observed.tenant = store_.find(name);
  observed.now = clock_.wall_now();
  observed.config = options_.plan;
  observed.failures = failures_.of_model(name, observed.now);
  static const std::vector<std::string> kNone;
  const auto& named = observed.tenant ? observed.tenant->namespaces : kNone;
  for (const auto& ns : store_.namespaces.all()) {
    const std::string ns_name = meta(*ns, "name");
    const bool is_named = std::ranges::find(named, ns_name) != named.end();
    if (is_named || labelled_tenant(*ns) == name) observed.namespaces.push_back(*ns);
  }
  for (const std::string& ns : named) {
    const plan::TenantPointer owner = store_.tenant_of(ns);
    if (owner && owner->uid != observed.tenant->uid) observed.owned_by_other[ns] = owner->name;
    if (const auto keys = store_.keys.find(ns + "/" + std::string(api::kApiKeysSecret))) {
      observed.key_mistakes.insert(observed.key_mistakes.end(), keys->mistakes.begin(),
                                   keys->mistakes.end());
    }
  }
  for (const auto& cache : store_.children) {
    for (const auto& child : cache.of_model(name)) observed.children.push_back(*child);
  }
  add_taken_names(name, observed);
  return observed;
}

// The name was taken: by somebody else's object, or our own without its labels.
void TenantController::add_taken_names(const std::string& name, plan::TenantObserved& observed) {
  for (const plan::WriteFailure& failure : observed.failures) {
    if (failure.error != ErrorKind::kConflict) continue;
    const kube::Resource* resource = tenant_resource(failure.kind);
    const bool known = std::ranges::any_of(observed.children, [&](const Json& child) {
      return child.value("kind", "") == failure.kind && plan::object_name(child) == failure.name;
    });
    if (resource != nullptr && resource != &kube::kNamespaces && !known) {
      auto taken = reads_.get(*resource, namespace_of(failure.name),
                              failure.name.substr(failure.name.find('/') + 1));
      if (taken) {
        observed.children.push_back(trimmed(*std::move(taken)));
        continue;
      }
      if (taken.error().kind != ErrorKind::kNotFound) continue;
    }
    failures_.forget(name, failure.kind, failure.name);
  }
}

std::optional<Error> TenantController::failed(const std::string& name, const std::string& kind,
                                              const std::string& object,
                                              const kube::ApiError& error) {
  if (error.kind != ErrorKind::kCancelled) {
    log_.info("write failed",
              {{"tenant", name}, {"kind", kind}, {"name", object}, {"error", error.message}});
    failures_.record(name, {kind, object, error.kind, error.message, clock_.wall_now()});
  }
  return Error(error);
}

void TenantController::keep(const std::string& kind, Json object) {
  if (kind == kube::kNamespaces.kind) return store_.namespaces.put(std::move(object));
  if (auto* cache = store_.children_of(kind)) cache->put(std::move(object));
}

std::optional<Error> TenantController::execute(const std::string& name,
                                               const plan::TenantPlan& plan) {
  std::optional<Error> first;
  const auto note = [&](std::optional<Error> error) {
    if (!first) first = std::move(error);
  };
  for (const plan::TenantRemoval& removal : plan.remove) {
    const kube::Resource* resource = tenant_resource(removal.kind);
    if (resource == nullptr) continue;
    kube::DeleteOptions options;
    options.uid = removal.uid;
    const auto answer = writes_.remove(*resource, removal.ns, removal.name, options);
    const std::string key = removal.ns + "/" + removal.name;
    const bool gone = answer || answer.error().kind == ErrorKind::kNotFound ||
                      answer.error().kind == ErrorKind::kConflict;
    if (!gone) {
      note(failed(name, removal.kind, key, answer.error()));
      continue;
    }
    log_.info("removed", {{"tenant", name}, {"kind", removal.kind}, {"name", key}});
    if (auto* cache = store_.children_of(removal.kind)) cache->erase(key, removal.uid);
  }
  for (const plan::ChildWrite& write : plan.writes) {
    const kube::Resource* resource = tenant_resource(write.kind);
    if (resource == nullptr) continue;
    using Verb = plan::ChildWrite::Verb;
    const bool create = write.verb == Verb::kCreate;
    const std::string ns = meta(write.object, "namespace");
    auto answer = create ? writes_.create(*resource, ns, write.object)
                  : write.verb == Verb::kMerge
                      ? writes_.merge_patch(*resource, ns, write.name, write.object)
                      : writes_.apply(*resource, ns, write.name, write.object);
    const std::string key = plan::object_name(write.object);
    if (!answer) {
      note(failed(name, write.kind, key, answer.error()));
      if (answer.error().code == 0) return first;  // nobody answers: the rest would only wait
      continue;
    }
    log_.info(plan::makes(write) ? "created" : "applied",
              {{"tenant", name}, {"kind", write.kind}, {"name", key}});
    failures_.forget(name, write.kind, key);
    keep(write.kind, *std::move(answer));
    if (resource == &kube::kNamespaces) look_at_models_in(write.name);
  }
  // After writes the next look says how things stand; before it only a refusal is news.
  const bool wrote = !plan.writes.empty() || !plan.remove.empty();
  if (plan.status && (first || !wrote)) note(write_status(name, *plan.status));
  return first;
}

std::optional<Error> TenantController::write_status(const std::string& name, const Json& status) {
  const auto tenant = store_.find(name);
  if (!tenant) return std::nullopt;
  const Json body = {{"apiVersion", kube::kDeepSeekTenants.api_version()},
                     {"kind", kube::kDeepSeekTenants.kind},
                     {"metadata", {{"name", name}, {"uid", tenant->uid}}},
                     {"status", status}};
  auto answer = writes_.apply_status(kube::kDeepSeekTenants, "", name, body);
  if (answer) {
    // It may have been edited since; then the answer is newer than what its watch brings of that.
    if (!same_but_for_status(trimmed(*answer), tenant->object)) queue_.add(name);
    store_.tenants.put(*std::move(answer));
    return std::nullopt;
  }
  if (answer.error().kind == ErrorKind::kNotFound) return std::nullopt;  // deleted meanwhile
  return Error(answer.error());
}

}  // namespace dsm::runtime
