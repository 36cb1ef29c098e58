// The loop of the models without its threads: which watches feed it, which keys need a look, and
// one look at one model as a whole: observe, decide (operator/plan), carry out. The controller runs
// it with threads, the fault simulation (operator/faults) step by step in virtual time.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "base/log.h"
#include "kube/client.h"
#include "kube/events.h"
#include "kube/watcher.h"
#include "operator/plan/plan.h"
#include "operator/runtime/executor.h"
#include "operator/runtime/feed.h"
#include "operator/runtime/leader_lines.h"
#include "operator/runtime/metrics.h"
#include "operator/runtime/model_doubts.h"
#include "operator/runtime/queue_words.h"
#include "operator/runtime/tenant_controller.h"
#include "operator/runtime/work_queue.h"

namespace dsm::runtime {

struct ModelLoopOptions {
  plan::Config plan;
  std::string ns = {};  // the namespace that is looked at; "": all
  // Groups may have PodGroups, where the cluster has that kind: the rights are there.
  bool coscheduling = false;
  // Absent: DeepSeekTenants are not looked at. They need rights in all namespaces.
  std::optional<TenantOptions> tenants = {};
};

class ModelLoop {
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

  // `reads` serves what a look asks for, `writes` what it does; both, and everything else, must
  // outlive the loop.
  ModelLoop(ModelLoopOptions options, kube::Client& reads, kube::Client& writes,
            kube::EventRecorder& events, ControllerMetrics& metrics, LeaderLines& leaders,
            Logger log);
  ModelLoop(const ModelLoop&) = delete;
  ModelLoop& operator=(const ModelLoop&) = delete;

  // The watches that it lives on. They must have ended before the loop does.
  std::vector<Feed> feeds();
  // The same of PodGroups, which the cluster may lack; with `coscheduling`.
  Feed pod_group_feed();
  void pod_groups_there(bool there);

  // Takes keys and looks at them until `stop`; any number of threads.
  void work(const std::stop_token& stop);
  // Looks at one key that is due; false: none is.
  bool step();

  // This process may write (again): looks at every model. Before the first call nothing is written.
  void lead(bool leading);
  // Who serves the metrics that autoscalers read. Looks at every model when it changes.
  void metrics_api(plan::MetricsApi now);
  // What a leader of the model has said.
  void on_news(const std::string& model, StreamNews news);
  void look_after(const std::string& model, Millis delay) { queue_.add_after(model, delay); }

  // Every cache has had its first list.
  bool synced() const {
    return store_.synced() && pod_groups_known_ &&
           (tenants_ == nullptr || tenants_->knows_tenants());
  }
  const Store& store() const { return store_; }
  const WorkQueue& queue() const { return queue_; }
  TenantController* tenants() const { return tenants_.get(); }  // null: not looked at

 private:
  using Take = std::function<std::set<std::string>(std::vector<kube::WatchEvent>)>;

  // What `take` says has changed is looked at: after `pause`, as urgently as given.
  kube::Watcher::Handler into(Take take, Urgency urgency = Urgency::kNews,
                              Millis pause = Millis(0));
  void look_at_all_once_synced();
  void look_at_all();
  // The models with a pod on one of the nodes.
  std::set<std::string> models_on(const std::set<std::string>& nodes) const;
  Result<Millis> look(const std::string& key);
  // Looks at one model; an error means: again later.
  Result<Millis> reconcile(const std::string& key);
  void forget(const std::string& key);
  // The model's Secret. What is kept may be of an earlier model of its name: deleting that one and
  // making this one may come as one change.
  Result<Secrets::Entry> secret_of(const std::string& key, const std::string& uid);
  std::vector<Leader> leaders_of(const std::string& key, const Json& model) const;
  // Pods of a model that is gone are ended by the garbage collector; what else holds them is ours
  // to take off.
  Result<Millis> let_go(const std::string& key);
  plan::Observed observe(const std::string& key, const Json& model, const Secrets::Entry& secret);
  // Within what its tenant grants the model.
  plan::Plan decide(const std::string& key, plan::Observed observed);
  void add_taken_names(const std::string& key, plan::Observed& observed);
  // Gives the system back what many looks have left, when there is nothing else to do.
  void rest();

  const ModelLoopOptions options_;
  kube::Client& reads_;
  Clock& clock_;
  ControllerMetrics& metrics_;
  LeaderLines& lines_;
  const Logger log_;
  Store store_;
  Failures failures_;
  Secrets secrets_;
  QueueWords queue_words_;
  ModelDoubts doubts_;
  Executor executor_;
  WorkQueue queue_;
  std::unique_ptr<TenantController> tenants_;
  std::atomic<bool> leading_ = false;
  std::atomic<int> looks_ = 0;  // since the heap was trimmed
  std::atomic<bool> was_synced_ = false;
  std::atomic<bool> pod_groups_known_;          // whether the cluster has them,
  std::atomic<bool> pod_groups_there_ = false;  // and that it does
  std::mutex written_mutex_;
  std::map<std::string, WallTime> status_written_;  // guarded by written_mutex_
  std::optional<WallTime> leads_since_;             // guarded by written_mutex_
  mutable std::mutex metrics_api_mutex_;
  plan::MetricsApi metrics_api_;  // guarded by metrics_api_mutex_
};

}  // namespace dsm::runtime
