// The second loop: tenants. Its watches fill the tenant store, whatever changed puts the tenant's
// name into its queue, and one worker looks at the tenant as a whole, decides (operator/plan) and
// carries the decision out. The loop of the models asks it what a model's tenant says about the
// model, and is asked by it to look again at models for which that has changed.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "kube/client.h"
#include "kube/watcher.h"
#include "operator/runtime/failures.h"
#include "operator/runtime/feed.h"
#include "operator/runtime/metrics.h"
#include "operator/runtime/tenant_budgets.h"
#include "operator/runtime/tenant_doubts.h"
#include "operator/runtime/tenant_store.h"
#include "operator/runtime/work_queue.h"

namespace dsm::runtime {

struct TenantOptions {
  plan::TenantConfig plan;
  ControllerMetrics* metrics = nullptr;  // outlives the controller
};

class TenantController {
 public:
  using LookAtModel = std::function<void(const std::string& model)>;

  static constexpr std::chrono::minutes kResync{5};
  // Changes of pods are counted together after this.
  static constexpr Millis kCountPause{100};

  // All must outlive it. `models` is written only where doubts are settled; `look_at` puts a model
  // into its own loop's queue.
  TenantController(TenantOptions options, kube::Client& reads, kube::Client& writes, Store& models,
                   LookAtModel look_at, Logger log);
  ~TenantController();  // stop()
  TenantController(const TenantController&) = delete;
  TenantController& operator=(const TenantController&) = delete;

  // The watches that it lives on. They must have ended before the controller does.
  std::vector<Feed> feeds();
  // Looks at one tenant that is due; false: none is.
  bool step();
  // With threads of its own for both.
  void start();
  void stop();
  void lead(bool leading);
  // Whether what is said about models is the truth yet.
  bool knows_tenants() const { return store_.knows_tenants(); }
  double longest_look() const { return queue_.under_work().second; }
  void update_metrics();

  // For the models' loop.
  plan::Plan plan(const std::string& model_key, const Json& model,
                  const TenantBudgets::Planner& planner) {
    return budgets_.plan(model_key, model, planner);
  }
  // Before that, while this process leads: what counts in the budget is read (tenant_doubts.h).
  Status settle(const std::string& ns) { return doubts_.settle(ns); }
  // A write in this namespace was not answered.
  void doubt(const std::string& ns) { doubts_.doubt(ns); }
  // What the leaders in a namespace are to be told; nullopt: what they were told last stands.
  std::optional<plan::KeyMessage> keys_for(const std::string& ns, const std::string& token) const;
  // The model, or a pod of it, is another than it was.
  void model_changed(const std::string& model_key);
  void model_gone(const std::string& model_key);

 private:
  using Changed = std::set<std::string>;
  kube::Watcher::Handler into(std::function<Changed(std::vector<kube::WatchEvent>)> take,
                              std::function<void(const std::string&)> on_change);
  void tenant_changed(const std::string& name);
  void namespace_changed(const std::string& ns);
  void keys_changed(const std::string& ns);
  void look_at_models_in(const std::string& ns);

  Result<Millis> reconcile(const std::string& name);
  plan::TenantObserved observe(const std::string& name);
  void add_taken_names(const std::string& name, plan::TenantObserved& observed);
  // The first failure, if any.
  std::optional<Error> execute(const std::string& name, const plan::TenantPlan& plan);
  std::optional<Error> write_status(const std::string& name, const Json& status);
  std::optional<Error> failed(const std::string& name, const std::string& kind,
                              const std::string& object, const kube::ApiError& error);
  void keep(const std::string& kind, Json object);

  const TenantOptions options_;
  kube::Client& reads_;
  kube::Client& writes_;
  Clock& clock_;
  const Store& models_;
  const LookAtModel look_at_;
  const Logger log_;
  TenantStore store_;
  TenantBudgets budgets_;
  TenantDoubts doubts_;
  Failures failures_;
  WorkQueue queue_;
  std::atomic<bool> leading_ = false;
  std::vector<std::unique_ptr<kube::Watcher>> watchers_;
  std::jthread worker_;
};

}  // namespace dsm::runtime
