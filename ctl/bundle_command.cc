#include <algorithm>

#include "ctl/archive.h"
#include "ctl/commands.h"
#include "ctl/objects.h"
#include "ctl/redact.h"
#include "ctl/tree_text.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

// What one bundle holds at most: it is put together in memory and sent by mail.
constexpr std::size_t kMostPods = 64;
constexpr std::size_t kMostEvents = 1000;
constexpr long kMostLogLines = 5000;
constexpr long kMostLogBytes = 512L << 10;

constexpr const char* kOperatorSelector = "app.kubernetes.io/name=deepseek-operator";

// Collects files; what cannot be read is noted in errors.txt and does not end the collection.
class Collector {
 public:
  Collector(Cluster& cluster, const BundleCommand& command)
      : cluster_(cluster), command_(command), top_(command.model + "/") {}

  // Fails only when there is no model to tell about.
  Status collect() {
    const Result<json> model = cluster_.model(command_.model);
    if (!model) return std::unexpected(model.error());
    add("model.json", *model);
    const auto pods = keep("pods", cluster_.pods(command_.model));
    add_list("pods.json", pods);
    add_list("services.json", keep("services", cluster_.services(command_.model)));
    add_list("revisions.json", keep("revisions", cluster_.revisions(command_.model)));
    if (const auto secret = cluster_.token_secret(command_.model)) {
      add("secret.json", *secret);
    } else {
      note("secret", secret.error());
    }
    std::vector<json> events = keep("events", cluster_.events(command_.model));
    if (events.size() > kMostEvents) {
      events.erase(events.begin(), events.end() - static_cast<std::ptrdiff_t>(kMostEvents));
    }
    add_list("events.json", events);
    add_status(*model, pods);
    add_logs(cluster_, "logs/", pods);
    add_operator();
    add_versions();
    if (!errors_.empty()) files_.push_back({top_ + "errors.txt", errors_});
    return {};
  }

  const std::vector<BundleFile>& files() const { return files_; }
  bool complete() const { return errors_.empty(); }

 private:
  void note(const std::string& what, const Error& error) {
    errors_ += what + ": " + error.message + "\n";
  }
  std::vector<json> keep(const char* what, Result<std::vector<json>> read) {
    if (read) return *std::move(read);
    note(what, read.error());
    return {};
  }
  void add(const std::string& path, const json& object) {
    files_.push_back(
        {top_ + path, redacted(object).dump(2, ' ', false, json::error_handler_t::replace) + "\n"});
  }
  void add_list(const std::string& path, const std::vector<json>& objects) {
    json items = json::array();
    for (const json& object : objects) items.push_back(redacted(object));
    add(path, {{"apiVersion", "v1"}, {"kind", "List"}, {"items", std::move(items)}});
  }

  void add_status(const json& model, const std::vector<json>& pods) {
    std::vector<plan::PodView> views;
    for (const json& pod : pods) views.push_back(plan::pod_view(pod));
    files_.push_back(
        {top_ + "status.txt",
         tree_text(tree_of(model, views), cluster_.client().clock().wall_now(), Style{})});
  }

  // Those of pods that are not ready come first, in case there are too many.
  void add_logs(Cluster& cluster, const std::string& folder, const std::vector<json>& pods) {
    std::vector<plan::PodView> views;
    for (const json& pod : pods) views.push_back(plan::pod_view(pod));
    std::ranges::stable_sort(views, {}, &plan::PodView::ready);
    if (views.size() > kMostPods) {
      errors_ += folder + ": the logs of " + std::to_string(views.size() - kMostPods) +
                 " pods were left out\n";
      views.resize(kMostPods);
    }
    for (const plan::PodView& pod : views) {
      if (pod.running || pod.restarts > 0) add_log(cluster, folder, pod.name, false);
      if (pod.restarts > 0) add_log(cluster, folder, pod.name, true);
    }
  }

  void add_log(Cluster& cluster, const std::string& folder, const std::string& pod, bool previous) {
    const kube::LogOptions options{
        .previous = previous, .tail_lines = kMostLogLines, .limit_bytes = kMostLogBytes};
    const std::string path = folder + pod + (previous ? ".previous.log" : ".log");
    auto answer = cluster.client().send(kube::log_request(cluster.ns(), pod, options), path);
    if (!answer) return note("log", answer.error());
    files_.push_back({top_ + path, std::move(answer->body)});
  }

  void add_operator() {
    Cluster there = cluster_.in(command_.operator_namespace);
    kube::ListOptions options;
    options.label_selector = kOperatorSelector;
    const auto pods = there.client().list(kube::kPods, there.ns(), options);
    if (!pods) return note("the operator's pods", explained(pods.error()));
    if (pods->items.empty()) {
      errors_ +=
          "the operator's pods: none in namespace " + there.ns() + "; give --operator-namespace\n";
    }
    add_list("operator/pods.json", pods->items);
    add_logs(there, "operator/logs/", pods->items);
  }

  void add_versions() {
    json versions = {{"dsmctl", program_version()}};
    if (auto server = cluster_.version()) {
      versions["kubernetes"] = *std::move(server);
    } else {
      note("the server's version", server.error());
    }
    if (const auto served = cluster_.api_versions()) {
      versions["deepseek-operator.io"] = *served;
    } else {
      note("the API's versions", served.error());
    }
    add("versions.json", versions);
  }

  Cluster& cluster_;
  const BundleCommand& command_;
  const std::string top_;
  std::vector<BundleFile> files_;
  std::string errors_;
};

}  // namespace

Result<int> run(const BundleCommand& command, Cluster& cluster, Io& io) {
  Collector collector(cluster, command);
  if (auto collected = collector.collect(); !collected) return std::unexpected(collected.error());
  const WallTime now = cluster.client().clock().wall_now();
  if (auto written = write_tar_gz(command.file, collector.files(), now); !written) {
    return std::unexpected(written.error());
  }
  io.out << command.file << ": " << collector.files().size()
         << " files; values of Secrets and of environment variables are not in it\n";
  if (!collector.complete()) {
    io.out << "some things could not be read: " << command.model
           << "/errors.txt in it says which\n";
  }
  return kExitDone;
}

}  // namespace dsm::ctl
