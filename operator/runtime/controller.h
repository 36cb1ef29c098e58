// The controller: the loop of the models with the threads that drive it. Watches fill the store,
// whatever changed puts its model's key into the queue, and workers take a key, look at the model
// as a whole, decide (operator/plan) and carry the decision out. Every replica of the operator
// keeps caches and status streams; only the one that may write decides and writes.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
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
#include "operator/runtime/leader_lines.h"
#include "operator/runtime/leader_pushes.h"
#include "operator/runtime/metrics.h"
#include "operator/runtime/model_loop.h"
#include "operator/runtime/status_streams.h"

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

class Controller : private LeaderLines {
 public:
  // `reads` serves the watches, `writes` the workers; both, and everything else, must outlive the
  // controller.
  Controller(ControllerOptions options, kube::Client& reads, kube::Client& writes,
             kube::EventRecorder& events, ControllerMetrics& metrics, Logger log);
  ~Controller() override;  // stop()
  Controller(const Controller&) = delete;
  Controller& operator=(const Controller&) = delete;

  void start();
  // Ends the workers after the plan that each has under way, then watches and streams.
  void stop();

  // This process may write (again): looks at every model. Before the first call nothing is written.
  void lead(bool leading) { loop_.lead(leading); }

  // Who serves the metrics that autoscalers read. Looks at every model when it changes.
  void metrics_api(plan::MetricsApi now) { loop_.metrics_api(std::move(now)); }
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
  bool synced() const { return loop_.synced(); }
  // Seconds that the longest look has taken so far.
  double longest_look() const {
    const double models = loop_.queue().under_work().second;
    const TenantController* tenants = loop_.tenants();
    return tenants ? std::max(models, tenants->longest_look()) : models;
  }
  void update_metrics();

 private:
  // For the loop, on the workers' threads.
  void set(const std::string& model, const std::vector<Leader>& leaders,
           const std::string& token) override;
  std::map<std::string, plan::LeaderStatus> latest(const std::string& model) const override;
  void tell_keys(const std::string& model, const std::vector<Leader>& leaders,
                 const std::string& token, const plan::KeyMessage& keys) override;
  void tell_sleep(const std::string& model, const std::vector<Leader>& leaders,
                  const std::string& token, bool sleep) override;
  void forget(const std::string& model) override;

  // Nothing: the model is not there any more. With streams_mutex_ held.
  std::optional<plan::ModelLoad> load_of(const std::string& key) const;
  void on_news(const std::string& model, StreamNews news);

  const ControllerOptions options_;
  kube::Client& reads_;
  Clock& clock_;
  ControllerMetrics& metrics_;
  const Logger log_;
  ModelLoop loop_;
  std::function<void(const std::string& ns, const std::string& model)> on_load_;
  // Held by all but the workers, who only run while the streams do: whoever reads metrics may come
  // before start() and during stop().
  mutable std::mutex streams_mutex_;
  std::unique_ptr<StatusStreams> streams_;
  std::unique_ptr<LeaderPushes> key_pushes_;
  std::unique_ptr<LeaderPushes> sleep_pushes_;
  std::vector<std::unique_ptr<kube::Watcher>> watchers_;
  std::unique_ptr<kube::OptionalWatch> pod_group_watch_;
  std::vector<std::jthread> workers_;
};

}  // namespace dsm::runtime
