#include "operator/runtime/controller.h"

#include <algorithm>

namespace dsm::runtime {
namespace {

std::string namespace_of(const std::string& key) {
  return key.substr(0, key.find('/'));
}

}  // namespace

Controller::Controller(ControllerOptions options, kube::Client& reads, kube::Client& writes,
                       kube::EventRecorder& events, ControllerMetrics& metrics, Logger log)
    : options_(std::move(options)),
      reads_(reads),
      clock_(writes.clock()),
      metrics_(metrics),
      log_(std::move(log)),
      loop_({options_.plan, options_.ns, options_.coscheduling, options_.tenants}, reads, writes,
            events, metrics, *this, log_) {}

Controller::~Controller() {
  stop();
}

void Controller::start() {
  auto streams = std::make_unique<StatusStreams>(
      clock_, options_.status_port,
      [this](const std::string& model, StreamNews news) { on_news(model, news); }, log_);
  {
    const std::lock_guard lock(streams_mutex_);
    streams_ = std::move(streams);
  }
  const auto pushes = [this] {
    return std::make_unique<LeaderPushes>(
        clock_, options_.status_port,
        [this](const std::string& model, Millis delay) { loop_.look_after(model, delay); }, log_);
  };
  key_pushes_ = pushes();
  sleep_pushes_ = pushes();
  if (loop_.tenants()) loop_.tenants()->start();
  const auto watched = [this](const Feed& feed) {
    return kube::WatcherOptions{feed.resource, options_.ns, feed.label_selector};
  };
  for (Feed& feed : loop_.feeds()) {
    watchers_.push_back(
        std::make_unique<kube::Watcher>(reads_, watched(feed), std::move(feed.take), log_));
  }
  if (options_.coscheduling) {
    Feed feed = loop_.pod_group_feed();
    // Nothing is decided before it is known whether there are any: a group is made with a PodGroup
    // or without one for good.
    pod_group_watch_ = std::make_unique<kube::OptionalWatch>(
        reads_, watched(feed), std::move(feed.take),
        [this](bool there) { loop_.pod_groups_there(there); }, log_);
  }
  for (int i = 0; i < options_.workers; ++i) {
    workers_.emplace_back([this](const std::stop_token& stop) { loop_.work(stop); });
  }
}

void Controller::stop() {
  for (std::jthread& worker : workers_) worker.request_stop();
  for (const auto& watcher : watchers_) watcher->request_stop();
  if (pod_group_watch_) pod_group_watch_->request_stop();
  workers_.clear();
  watchers_.clear();
  pod_group_watch_.reset();
  if (loop_.tenants()) loop_.tenants()->stop();
  key_pushes_.reset();
  sleep_pushes_.reset();
  std::unique_ptr<StatusStreams> ended;  // without the lock, which their callbacks may want
  const std::lock_guard lock(streams_mutex_);
  ended.swap(streams_);
}

void Controller::set(const std::string& model, const std::vector<Leader>& leaders,
                     const std::string& token) {
  streams_->set(model, leaders, token);
}

std::map<std::string, plan::LeaderStatus> Controller::latest(const std::string& model) const {
  return streams_->latest(model);
}

void Controller::tell_keys(const std::string& model, const std::vector<Leader>& leaders,
                           const std::string& token, const plan::KeyMessage& keys) {
  key_pushes_->tell(model, leaders, streams_->latest(model), token, keys_message(keys));
}

void Controller::tell_sleep(const std::string& model, const std::vector<Leader>& leaders,
                            const std::string& token, bool sleep) {
  sleep_pushes_->tell(model, leaders, streams_->latest(model), token, sleep_message(sleep));
}

void Controller::forget(const std::string& model) {
  streams_->set(model, {}, "");
  key_pushes_->forget(model);
  sleep_pushes_->forget(model);
}

std::optional<plan::ModelLoad> Controller::load_of(const std::string& key) const {
  const std::string uid = loop_.store().models.uid(key);
  if (uid.empty()) return std::nullopt;
  std::vector<plan::PodView> pods;
  for (const auto& pod : loop_.store().pods.of_model(key)) pods.push_back(*pod);
  return plan::load_of(key.substr(key.find('/') + 1), uid, pods, streams_->latest(key),
                       clock_.wall_now());
}

std::vector<plan::ModelLoad> Controller::loads(const std::string& ns,
                                               const std::string& model) const {
  std::vector<plan::ModelLoad> result;
  const std::lock_guard lock(streams_mutex_);
  if (!streams_) return result;
  const std::vector<std::string> keys =
      model.empty() ? loop_.store().models.keys_in(ns) : std::vector<std::string>{ns + "/" + model};
  for (const std::string& key : keys) {
    if (auto load = load_of(key)) result.push_back(*std::move(load));
  }
  return result;
}

std::map<std::string, std::vector<plan::ModelLoad>> Controller::loads() const {
  std::map<std::string, std::vector<plan::ModelLoad>> result;
  const std::lock_guard lock(streams_mutex_);
  if (!streams_) return result;
  for (const std::string& key : loop_.store().models.keys()) {
    if (auto load = load_of(key)) result[namespace_of(key)].push_back(*std::move(load));
  }
  return result;
}

void Controller::on_news(const std::string& model, StreamNews news) {
  if (on_load_) {
    const std::string ns = namespace_of(model);
    on_load_(ns, model.substr(ns.size() + 1));
  }
  loop_.on_news(model, news);
}

void Controller::update_metrics() {
  const Store& store = loop_.store();
  metrics_.update(loop_.queue());
  metrics_.objects("DeepSeekModel", store.models.size());
  metrics_.objects("Pod", store.pods.size());
  metrics_.objects("Service", store.services.size());
  metrics_.objects("ControllerRevision", store.revisions.size());
  metrics_.objects("HorizontalPodAutoscaler", store.autoscalers.size());
  metrics_.objects("PodDisruptionBudget", store.budgets.size());
  metrics_.objects("PodGroup", store.pod_groups.size());
  metrics_.objects("Node", store.nodes.size());
  {
    const std::lock_guard lock(streams_mutex_);
    metrics_.streams(streams_ ? streams_->connected() : 0);
  }
  if (loop_.tenants()) loop_.tenants()->update_metrics();
}

}  // namespace dsm::runtime
