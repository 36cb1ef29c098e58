// The controller: watches fill the store, whatever changed puts its model's key into the queue, and
// workers take a key, look at the model as a whole, decide (operator/plan) and carry the decision
// out. Every replica of the operator keeps caches and status streams; only the one that may write
// decides and writes.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "kube/client.h"
#include "kube/events.h"
#include "kube/optional_watch.h"
#include "kube/watcher.h"
#include "operator/plan/load.h"
#include "operator/plan/plan.h"
#include "operator/runtime/executor.h"
#include "operator/runtime/key_pushes.h"
#include "operator/runtime/metrics.h"
#include "operator/runtime/queue_words.h"
#include "operator/runtime/status_streams.h"
#include "operator/runtime/tenant_controller.h"
#include "operator/runtime/work_queue.h"

namespace dsm::runtime {

struct ControllerOptions {
  std::string ns;  // watch only this namespace; "": all
  plan::Config plan;
  // Groups may have PodGroups, where the cluster has that kind: the rights are there.
  bool coscheduling = false;
  int workers = 8;
  std::uint16_t status_port = 8001;  // of the leaders' status streams
  // Absent: DeepSeekTenants are not looked at. They need rights in all namespaces.
  std::optional<TenantOptions> tenants = {};
};

class Controller {
 public:
  // Changes of mere numbers in a status stream are looked at together after this,
  static constexpr Millis kNumbersPause{1'000};
  // and what becomes of pods after this: those of a model are made, scheduled and started together,
  // and each of their steps would be a look.
  static constexpr Millis kPodsPause{100};
  // A model is looked at again after this even when nothing is seen to change: its token Secret is
  // not watched.
  static constexpr std::chrono::minutes kResync{5};
  // The heap is trimmed after so many looks.
  static constexpr int kLooksUntilTrim = 1'000;

  // `reads` serves the watches, `writes` the workers; both, and everything else, must outlive the
  // controller.
  Controller(ControllerOptions options, kube::Client& reads, kube::Client& writes,
             kube::EventRecorder& events, ControllerMetrics& metrics, Logger log);
  ~Controller();  // stop()
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void start();
  // Ends the workers after the plan that each has under way, then watches and streams.
  void stop();

  // This process may write (again): looks at every model. Before the first call nothing is written.
  void lead(bool leading);

  // Who serves the metrics that autoscalers read. Looks at every model when it changes.
  void metrics_api(plan::MetricsApi now);
  // What a model has to do, as its leaders say; `model` empty: what all of the namespace have.
  std::vector<plan::ModelLoad> loads(const std::string& ns, const std::string& model) const;
  // Those of all models, by namespace.
  std::map<std::string, std::vector<plan::ModelLoad>> loads() const;
  // Called when a leader of a model has said something new, on the streams' threads. Before
  // start().
  void on_load(std::function<void(const std::string& ns, const std::string& model)> told) {
    on_load_ = std::move(told);
  }

  // Every cache has had its first list.
  bool synced() const {
    return store_.synced() && pod_groups_known_ &&
           (tenants_ == nullptr || tenants_->knows_tenants());
  }
  // Seconds that the longest look has taken so far.
  double longest_look() const {
    const double models = queue_.under_work().second;
    return tenants_ ? std::max(models, tenants_->longest_look()) : models;
  }
  void update_metrics();

 private:
  using Take = std::function<std::set<std::string>(std::vector<kube::WatchEvent>)>;

  // What `take` says has changed is looked at: after `pause`, as urgently as given.
  void watch(const kube::Resource& resource, const std::string& selector, Take take,
             Urgency urgency = Urgency::kNews, Millis pause = Millis(0));
  kube::Watcher::Handler into(Take take, Urgency urgency, Millis pause);
  void watch_pod_groups(const std::string& selector);
  void look_at_all_once_synced();
  // Nothing: the model is not there any more. With streams_mutex_ held.
  std::optional<plan::ModelLoad> load_of(const std::string& key) const;
  // The models with a pod on one of the nodes.
  std::set<std::string> models_on(const std::set<std::string>& nodes) const;
  // Looks at one model; an error means: again later.
  Result<Millis> reconcile(const std::string& key);
  std::vector<Leader> leaders_of(const std::string& key, const Json& model) const;
  // After a write that was not answered: what the model's pods are now, before the next decision.
  // A pod that was deleted without our knowing would count as one that serves.
  Status settle_doubts(const std::string& key);
  // Pods of a model that is gone are ended by the garbage collector; what else holds them is ours
  // to take off.
  Result<Millis> let_go(const std::string& key);
  plan::Observed observe(const std::string& key, const Json& model, const Secrets::Entry& secret);
  void add_taken_names(const std::string& key, plan::Observed& observed);
  void on_news(const std::string& model, StreamNews news);
  // Gives the system back what many looks have left, when there is nothing else to do.
  void rest();

  const ControllerOptions options_;
  kube::Client& reads_;
  kube::Client& writes_;
  Clock& clock_;
  ControllerMetrics& metrics_;
  const Logger log_;
  Store store_;
  Failures failures_;
  Secrets secrets_;
  QueueWords queue_words_;
  Executor executor_;
  WorkQueue queue_;
  std::atomic<bool> leading_ = false;
  std::atomic<int> looks_ = 0;  // since the heap was trimmed
  std::atomic<bool> was_synced_ = false;
  std::atomic<bool> pod_groups_known_;          // whether the cluster has them,
  std::atomic<bool> pod_groups_there_ = false;  // and that it does
  std::function<void(const std::string& ns, const std::string& model)> on_load_;
  std::mutex written_mutex_;
  std::map<std::string, WallTime> status_written_;  // guarded by written_mutex_
  std::set<std::string> doubtful_;                  // guarded by written_mutex_
  mutable std::mutex metrics_api_mutex_;
  plan::MetricsApi metrics_api_;  // guarded by metrics_api_mutex_
  // Held by all but the workers, who only run while the streams do: whoever reads metrics may come
  // before start() and during stop().
  mutable std::mutex streams_mutex_;
  std::unique_ptr<StatusStreams> streams_;
  std::unique_ptr<KeyPushes> pushes_;
  std::unique_ptr<TenantController> tenants_;
  std::vector<std::unique_ptr<kube::Watcher>> watchers_;
  std::unique_ptr<kube::OptionalWatch> pod_group_watch_;
  std::vector<std::jthread> workers_;
};

}  // namespace dsm::runtime
