#include "operator/runtime/model_loop.h"

#include <malloc.h>

#include <algorithm>

#include "base/random.h"
#include "operator/api/names.h"
#include "operator/plan/kueue.h"
#include "operator/plan/sleep.h"
#include "operator/runtime/work_loop.h"

namespace dsm::runtime {
namespace {

constexpr Millis kAskHeldAgain{15'000};

std::string namespace_of(const std::string& key) {
  return key.substr(0, key.find('/'));
}

std::string uid_of(const Json& model) {
  return model.value("metadata", Json::object()).value("uid", std::string());
}

bool owned_by(const Json& object, const std::string& uid) {
  const Json owners =
      object.value("metadata", Json::object()).value("ownerReferences", Json::array());
  return std::ranges::any_of(owners,
                             [&](const Json& owner) { return owner.value("uid", "") == uid; });
}

}  // namespace

ModelLoop::ModelLoop(ModelLoopOptions options, kube::Client& reads, kube::Client& writes,
                     kube::EventRecorder& events, ControllerMetrics& metrics, LeaderLines& leaders,
                     Logger log)
    : options_(std::move(options)),
      reads_(reads),
      clock_(writes.clock()),
      metrics_(metrics),
      lines_(leaders),
      log_(std::move(log)),
      secrets_(reads),
      queue_words_(reads),
      doubts_(reads, options_.ns, store_,
              [this](const std::string& model, Millis delay) {
                queue_.add_after(model, delay, Urgency::kNews);
                if (tenants_) tenants_->model_changed(model);
              }),
      executor_(writes, events, store_, secrets_, failures_, log_),
      queue_(clock_, metrics.queue_observer()),
      pod_groups_known_(!options_.coscheduling) {
  store_.with_nodes = options_.plan.watches_nodes;
  if (!options_.tenants) return;
  tenants_ = std::make_unique<TenantController>(
      *options_.tenants, reads, writes, store_,
      [this](const std::string& model) { queue_.add(model); }, log_);
}

kube::Watcher::Handler ModelLoop::into(Take take, Urgency urgency, Millis pause) {
  return [this, take = std::move(take), urgency, pause](std::vector<kube::WatchEvent> events) {
    for (const std::string& model : take(std::move(events))) {
      if (model.empty()) continue;
      queue_.add_after(model, pause, urgency);
      if (tenants_) tenants_->model_changed(model);
    }
    look_at_all_once_synced();
  };
}

// Keys that came before the last list had come were put off.
void ModelLoop::look_at_all_once_synced() {
  if (!synced() || was_synced_.exchange(true)) return;
  log_.info("caches are synced", {{"models", store_.models.size()}, {"pods", store_.pods.size()}});
  // Lists are read as trees of many times their size: that goes back to the system.
  malloc_trim(0);
  doubts_.begin();
  look_at_all();
}

void ModelLoop::look_at_all() {
  for (const std::string& key : store_.models.keys()) {
    // An edit that came while nobody led does not stand behind all models that stay as they are.
    const auto model = store_.models.find(key);
    queue_.add(key, model && unseen(*model) ? Urgency::kEdit : Urgency::kNews);
  }
}

std::vector<Feed> ModelLoop::feeds() {
  const std::string ours =
      std::string(api::kManagedByLabel) + "=" + std::string(api::kManagedByValue);
  const auto to = [](auto& cache) {
    return [&cache](std::vector<kube::WatchEvent> events) { return cache.take(std::move(events)); };
  };
  // What we write into a status ourselves is no change to the store any more when it comes here:
  // others have edited the model.
  std::vector<Feed> feeds = {{kube::kDeepSeekModels, "", into(to(store_.models), Urgency::kEdit)},
                             {kube::kPods, ours, into(to(store_.pods), Urgency::kNews, kPodsPause)},
                             {kube::kServices, ours, into(to(store_.services))},
                             {kube::kControllerRevisions, ours, into(to(store_.revisions))},
                             {kube::kAutoscalers, ours, into(to(store_.autoscalers))}};
  if (options_.plan.watches_nodes) {
    feeds.push_back({kube::kPodDisruptionBudgets, ours, into(to(store_.budgets))});
    feeds.push_back({kube::kNodes, "", into([this](std::vector<kube::WatchEvent> events) {
                       return models_on(store_.nodes.take(std::move(events)));
                     })});
  }
  return feeds;
}

Feed ModelLoop::pod_group_feed() {
  return {kube::kPodGroups,
          std::string(api::kManagedByLabel) + "=" + std::string(api::kManagedByValue),
          into([this](std::vector<kube::WatchEvent> events) {
            return store_.pod_groups.take(std::move(events));
          })};
}

void ModelLoop::pod_groups_there(bool there) {
  if (!there) store_.pod_groups.clear();
  pod_groups_there_ = there;
  pod_groups_known_ = true;
  look_at_all_once_synced();
  // Groups that were made with one while the kind was there before have it again.
  if (there) look_at_all();
}

void ModelLoop::work(const std::stop_token& stop) {
  runtime::work(
      queue_, metrics_, clock_, log_, "model", [this](const std::string& key) { return look(key); },
      stop);
}

bool ModelLoop::step() {
  const auto key = queue_.try_take();
  if (!key) return false;
  look_at(queue_, metrics_, clock_, log_, "model", *key,
          [this](const std::string& taken) { return look(taken); });
  return true;
}

void ModelLoop::lead(bool leading) {
  if (leading) {
    doubts_.begin();
    const std::lock_guard lock(written_mutex_);
    leads_since_ = clock_.wall_now();
  }
  if (tenants_) tenants_->lead(leading);
  leading_ = leading;
  metrics_.leading(leading);
  if (leading) look_at_all();
}

void ModelLoop::metrics_api(plan::MetricsApi now) {
  {
    const std::lock_guard lock(metrics_api_mutex_);
    if (metrics_api_ == now) return;
    metrics_api_ = std::move(now);
  }
  look_at_all();
}

void ModelLoop::on_news(const std::string& model, StreamNews news) {
  switch (news) {
    case StreamNews::kNumbers:
      return queue_.add_after(model, kNumbersPause);
    case StreamNews::kRefused:
      secrets_.forget(model);
      return queue_.add_after(model, kNumbersPause);
    case StreamNews::kState:
      return queue_.add_after(model, kPodsPause, Urgency::kNews);
  }
}

Result<Millis> ModelLoop::look(const std::string& key) {
  auto again = reconcile(key);
  rest();
  return again;
}

// What a look and an event leave behind lies between things that stay, so the heap itself keeps it.
void ModelLoop::rest() {
  if (++looks_ < kLooksUntilTrim || queue_.depth() > 0) return;
  looks_ = 0;
  malloc_trim(0);
}

std::set<std::string> ModelLoop::models_on(const std::set<std::string>& nodes) const {
  std::set<std::string> models;
  if (nodes.empty()) return models;
  for (const std::string& model : store_.models.keys()) {
    const auto pods = store_.pods.of_model(model);
    if (std::ranges::any_of(pods, [&](const auto& pod) { return nodes.contains(pod->node); })) {
      models.insert(model);
    }
  }
  return models;
}

std::vector<Leader> ModelLoop::leaders_of(const std::string& key, const Json& model) const {
  std::vector<Leader> leaders;
  const std::string uid = uid_of(model);
  for (const auto& pod : store_.pods.of_model(key)) {
    if (pod->index == 0 && pod->owner_uid == uid && pod->running && !pod->ip.empty()) {
      leaders.push_back({pod->uid, pod->ip});
    }
  }
  return leaders;
}

Result<Millis> ModelLoop::reconcile(const std::string& key) {
  if (!synced()) return Millis(0);  // every key comes again once the caches are full
  if (leading_) {
    const Result<bool> certain = doubts_.settle(key);
    if (!certain) return std::unexpected(certain.error());
    if (!*certain) return Millis(0);  // it comes again when all has been read
    if (tenants_) {
      Status known = tenants_->settle(namespace_of(key));
      if (!known) return std::unexpected(known.error());
    }
  }
  const auto model = store_.models.find(key);
  if (!model) {
    forget(key);
    return let_go(key);
  }
  const std::vector<Leader> leaders = leaders_of(key, *model);
  if (!leading_ && leaders.empty()) {
    // Nobody to listen to, and so no token to be read: the one who leads is about to make it.
    lines_.set(key, {}, "");
    return std::chrono::duration_cast<Millis>(kResync);
  }
  const Result<Secrets::Entry> secret = secret_of(key, uid_of(*model));
  if (!secret) return std::unexpected(secret.error());
  // A Secret of our name that somebody else made is none of our business.
  const bool ours = !secret->object.is_null() && owned_by(secret->object, uid_of(*model));
  const std::string token = ours ? secret->token : "";
  lines_.set(key, leaders, token);
  if (!leading_) return std::chrono::duration_cast<Millis>(kResync);
  if (tenants_ && !token.empty()) {
    // Before anything that takes long: a key that was revoked must not wait.
    if (const auto message = tenants_->keys_for(namespace_of(key), token)) {
      lines_.tell_keys(key, leaders, token, *message);
    }
  }
  if (!token.empty()) lines_.tell_sleep(key, leaders, token, plan::wants_sleep(*model));
  const plan::Plan plan = decide(key, observe(key, *model, *secret));
  if (!plan.quiet()) {
    const Outcome outcome = executor_.run(plan, *model);
    if (outcome.status_written) {
      const std::lock_guard lock(written_mutex_);
      status_written_[key] = clock_.wall_now();
    }
    if (outcome.cut_off) {
      if (tenants_) tenants_->doubt(namespace_of(key));
      doubts_.doubt(key);
    }
    if (outcome.error) return std::unexpected(*outcome.error);
    // What was written is in the store already, so the watch will bring no news of it: look again
    // until there is nothing left to write.
    if (outcome.overtaken || !plan.remove.empty() || !plan.children.empty() ||
        !plan.create_pods.empty()) {
      queue_.add(key, outcome.overtaken ? Urgency::kEdit : Urgency::kNews);
    }
  }
  return plan.requeue_after.count() > 0 ? std::min<Millis>(plan.requeue_after, kResync)
                                        : std::chrono::duration_cast<Millis>(kResync);
}

void ModelLoop::forget(const std::string& key) {
  lines_.forget(key);
  failures_.forget_model(key);
  secrets_.forget(key);
  doubts_.forget(key);
  if (tenants_) tenants_->model_gone(key);
  const std::lock_guard lock(written_mutex_);
  status_written_.erase(key);
}

Result<Secrets::Entry> ModelLoop::secret_of(const std::string& key, const std::string& uid) {
  Result<Secrets::Entry> kept = secrets_.of_model(key);
  if (!kept || kept->object.is_null() || owned_by(kept->object, uid)) return kept;
  secrets_.forget(key);
  return secrets_.of_model(key);
}

Result<Millis> ModelLoop::let_go(const std::string& key) {
  std::vector<plan::PodView> pods;
  for (const auto& pod : store_.pods.of_model(key)) pods.push_back(*pod);
  plan::Plan plan;
  plan.release = plan::releases(pods);
  if (plan.quiet()) return Millis(0);
  // Whoever leads does it. If that one ends before it has, nothing else would tell us.
  if (!leading_) return kAskHeldAgain;
  const std::string ns = namespace_of(key);
  const Json model = {{"metadata", {{"namespace", ns}, {"name", key.substr(ns.size() + 1)}}}};
  const Outcome outcome = executor_.run(plan, model);
  if (outcome.error) return std::unexpected(*outcome.error);
  return Millis(0);
}

plan::Observed ModelLoop::observe(const std::string& key, const Json& model,
                                  const Secrets::Entry& secret) {
  plan::Observed observed;
  observed.model = model;
  for (auto& pod : store_.pods.of_model(key)) observed.pods.push_back(std::move(*pod));
  const auto add = [&](auto children) {
    for (auto& child : children) observed.children.push_back(std::move(*child));
  };
  add(store_.services.of_model(key));
  add(store_.revisions.of_model(key));
  add(store_.autoscalers.of_model(key));
  add(store_.budgets.of_model(key));
  observed.pod_groups = pod_groups_there_;
  add(store_.pod_groups.of_model(key));
  if (!secret.object.is_null()) observed.children.push_back(secret.object);
  observed.leaders = lines_.latest(key);
  observed.now = clock_.wall_now();
  observed.failures = failures_.of_model(key, observed.now);
  observed.fresh_token = random_hex(32);
  {
    const std::lock_guard lock(written_mutex_);
    const auto written = status_written_.find(key);
    if (written != status_written_.end()) observed.status_written = written->second;
    observed.leads_since = leads_since_;
  }
  observed.config = options_.plan;
  {
    const std::lock_guard lock(metrics_api_mutex_);
    observed.metrics_api = metrics_api_;
  }
  if (observed.config.kueue) {
    const auto waiting = plan::groups_in_queue(observed.pods);
    observed.queue_words = queue_words_.of_groups(namespace_of(key), waiting);
  }
  add_taken_names(key, observed);
  for (const plan::PodView& pod : observed.pods) {
    if (const auto node = store_.nodes.find(pod.node)) observed.nodes[pod.node] = *node;
  }
  return observed;
}

plan::Plan ModelLoop::decide(const std::string& key, plan::Observed observed) {
  if (!tenants_) return plan::plan(observed);
  const Json model = observed.model;
  return tenants_->plan(key, model, [&](std::optional<plan::TenantGrant> grant) {
    observed.tenant = std::move(grant);
    return plan::plan(observed);
  });
}

void ModelLoop::add_taken_names(const std::string& key, plan::Observed& observed) {
  const auto here = [&](const plan::WriteFailure& failure) {
    if (failure.kind == kube::kPods.kind) {
      return std::ranges::any_of(observed.pods,
                                 [&](const auto& pod) { return pod.name == failure.name; });
    }
    return std::ranges::any_of(observed.children, [&](const Json& child) {
      return child.value("kind", "") == failure.kind &&
             child.value("metadata", Json::object()).value("name", "") == failure.name;
    });
  };
  std::erase_if(observed.failures, [&](const plan::WriteFailure& failure) {
    if (failure.error != ErrorKind::kConflict) return false;
    if (!here(failure)) {
      const kube::Resource* resource = resource_of(failure.kind);
      if (resource == nullptr) return false;
      const auto taken = reads_.get(*resource, namespace_of(key), failure.name);
      const bool ours = taken && owned_by(*taken, uid_of(observed.model));
      if (ours && failure.kind == kube::kPods.kind) {
        // Made by us, and the answer was lost.
        store_.pods.put(*taken);
        observed.pods.push_back(plan::pod_view(*taken));
      } else if (taken) {
        if (failure.kind != kube::kPods.kind) observed.children.push_back(trimmed(*taken));
        return false;
      } else if (taken.error().kind != ErrorKind::kNotFound) {
        return false;
      }
    } else if (failure.kind != kube::kPods.kind) {
      return false;  // the plan sees the object itself and judges it
    }
    // The name is free again, or it is our own pod that the cache had not seen.
    failures_.forget(key, failure.kind, failure.name);
    return true;
  });
}

}  // namespace dsm::runtime
