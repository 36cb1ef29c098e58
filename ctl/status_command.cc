#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "ctl/commands.h"
#include "ctl/objects.h"
#include "ctl/tree_text.h"
#include "kube/sleep.h"
#include "kube/watcher.h"
#include "operator/api/names.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

constexpr Millis kRedrawPause{200};
constexpr const char* kHome = "\x1b[H\x1b[2J";  // cursor to the top, screen cleared

std::vector<plan::PodView> views_of(const std::vector<json>& pods) {
  std::vector<plan::PodView> views;
  views.reserve(pods.size());
  for (const json& pod : pods) views.push_back(plan::pod_view(pod));
  return views;
}

std::string picture(const std::vector<ModelTree>& trees, WallTime now, const StatusCommand& command,
                    const Style& style) {
  if (command.json) {
    json all = json::array();
    for (const ModelTree& tree : trees) all.push_back(to_json(tree));
    // A line for each change when it goes on, a readable whole otherwise.
    return json{{"models", std::move(all)}}.dump(command.watch ? -1 : 2) + "\n";
  }
  if (trees.empty()) return "no DeepSeekModel\n";
  std::string text;
  for (const ModelTree& tree : trees) text += tree_text(tree, now, style);
  return text;
}

// The newest objects of one list-watch, and whether they are complete. Not thread-safe.
class Followed {
 public:
  void take(std::vector<kube::WatchEvent> events) {
    using Kind = kube::WatchEvent::Kind;
    for (kube::WatchEvent& event : events) {
      const std::string key = namespace_of(event.object) + "/" + name_of(event.object);
      if (event.kind == Kind::kInit) next_.clear();
      if (event.kind == Kind::kInitApply) next_[key] = std::move(event.object);
      if (event.kind == Kind::kInitDone) objects_ = std::exchange(next_, {});
      if (event.kind == Kind::kInitDone) complete_ = true;
      if (event.kind == Kind::kApply) objects_[key] = std::move(event.object);
      if (event.kind == Kind::kDelete) objects_.erase(key);
    }
  }
  bool complete() const { return complete_; }
  const std::map<std::string, json>& objects() const { return objects_; }

 private:
  std::map<std::string, json> objects_;
  std::map<std::string, json> next_;  // a list that is under way
  bool complete_ = false;
};

// Both list-watches, fed by their threads.
class Following {
 public:
  Following(Cluster& cluster, const StatusCommand& command)
      : only_(command.model),
        models_watch_(
            cluster.client(), options(kube::kDeepSeekModels, "", cluster, command),
            [this](auto events) { take(models_, std::move(events)); },
            Logger::to_stderr(LogLevel::kInfo, LogFormat::kText)),
        pods_watch_(
            cluster.client(), options(kube::kPods, ours(), cluster, command),
            [this](auto events) { take(pods_, std::move(events)); },
            Logger::to_stderr(LogLevel::kInfo, LogFormat::kText)) {}

  // Waits for news; nothing when `stop` was requested.
  std::optional<std::vector<ModelTree>> next(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    const bool news =
        changed_.wait(lock, stop, [&] { return news_ && models_.complete() && pods_.complete(); });
    if (!news) return std::nullopt;
    news_ = false;
    std::vector<plan::PodView> pods;
    for (const auto& [key, pod] : pods_.objects()) pods.push_back(plan::pod_view(pod));
    std::vector<ModelTree> trees;
    for (const auto& [key, model] : models_.objects()) {
      if (only_.empty() || name_of(model) == only_) trees.push_back(tree_of(model, pods));
    }
    return trees;
  }

 private:
  static std::string ours() {
    return std::string(api::kManagedByLabel) + "=" + std::string(api::kManagedByValue);
  }
  static kube::WatcherOptions options(const kube::Resource& resource, std::string selector,
                                      const Cluster& cluster, const StatusCommand& command) {
    kube::WatcherOptions out;
    out.resource = resource;
    out.ns = command.all_namespaces ? "" : cluster.ns();
    out.label_selector = std::move(selector);
    return out;
  }
  void take(Followed& followed, std::vector<kube::WatchEvent> events) {
    const std::lock_guard lock(mutex_);
    followed.take(std::move(events));
    news_ = true;
    changed_.notify_all();
  }

  const std::string only_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool news_ = false;
  Followed models_;
  Followed pods_;
  kube::Watcher models_watch_;  // last: their threads use what is above
  kube::Watcher pods_watch_;
};

}  // namespace

Result<int> watch_status(const StatusCommand& command, Cluster& cluster, Io& io,
                         const std::stop_token& stop) {
  // A wrong name or a refusal is said at once, not tried again for ever.
  if (!command.model.empty()) {
    if (const auto model = cluster.model(command.model); !model) {
      return std::unexpected(model.error());
    }
  } else if (const auto models = cluster.models(command.all_namespaces); !models) {
    return std::unexpected(models.error());
  }
  Following following(cluster, command);
  Clock& clock = cluster.client().clock();
  std::string last;
  while (const auto trees = following.next(stop)) {
    std::string text = picture(*trees, clock.wall_now(), command, io.style);
    if (text != last) {
      if (io.terminal && !command.json) io.out << kHome;
      io.out << text << (io.terminal || command.json ? "" : "\n") << std::flush;
      last = std::move(text);
    }
    if (!kube::sleep_for(clock, kRedrawPause, stop)) break;
  }
  return kExitDone;
}

Result<int> run(const StatusCommand& command, Cluster& cluster, Io& io) {
  if (command.watch) return watch_status(command, cluster, io, {});
  std::vector<json> models;
  if (command.model.empty()) {
    auto all = cluster.models(command.all_namespaces);
    if (!all) return std::unexpected(all.error());
    models = *std::move(all);
  } else {
    auto model = cluster.model(command.model);
    if (!model) return std::unexpected(model.error());
    models.push_back(*std::move(model));
  }
  const auto pods = cluster.pods(command.model, command.all_namespaces);
  if (!pods) return std::unexpected(pods.error());
  const std::vector<plan::PodView> views = views_of(*pods);
  std::vector<ModelTree> trees;
  for (const json& model : models) trees.push_back(tree_of(model, views));
  io.out << picture(trees, cluster.client().clock().wall_now(), command, io.style);
  return kExitDone;
}

}  // namespace dsm::ctl
