#include <mutex>
#include <optional>
#include <thread>

#include "ctl/commands.h"
#include "ctl/log_pods.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

// Of one pod, when the log is not followed: it is held in memory.
constexpr long kMostBytes = 64L << 20;
// A pod that serves says nothing for long.
constexpr Millis kLongestSilence = std::chrono::hours(24);

class Output {
 public:
  explicit Output(std::ostream& out) : out_(out) {}
  void write(const std::string& lines) {
    if (lines.empty()) return;
    const std::lock_guard lock(mutex_);
    out_ << lines << std::flush;
  }
  // The first error is kept; the others' logs go on.
  void failed(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  std::optional<Error> error() const { return error_; }

 private:
  std::ostream& out_;
  std::mutex mutex_;
  std::optional<Error> error_;
};

void follow(Cluster& cluster, const LogPod& pod, const kube::LogOptions& options, Output& output) {
  LinePrefixer lines(pod.prefix);
  const auto answer =
      cluster.client().stream(kube::log_request(cluster.ns(), pod.name, options), kLongestSilence,
                              [&](std::string_view bytes) { output.write(lines.add(bytes)); }, {});
  output.write(lines.finish());
  if (!answer) return output.failed(answer.error());
  if (answer->ok()) return;
  output.failed(explained(kube::api_error(answer->status, answer->body, answer->retry_after_s(),
                                          "log of pod " + pod.name)));
}

void print(Cluster& cluster, const LogPod& pod, kube::LogOptions options, Output& output) {
  options.limit_bytes = kMostBytes;
  const auto answer = cluster.client().send(kube::log_request(cluster.ns(), pod.name, options),
                                            "log of pod " + pod.name);
  if (!answer) return output.failed(explained(answer.error()));
  LinePrefixer lines(pod.prefix);
  output.write(lines.add(answer->body));
  output.write(lines.finish());
}

}  // namespace

Result<int> run(const LogsCommand& command, Cluster& cluster, Io& io) {
  const Result<json> model = cluster.model(command.model);
  if (!model) return std::unexpected(model.error());
  const auto pods = cluster.pods(command.model);
  if (!pods) return std::unexpected(pods.error());
  const auto chosen = choose_log_pods(*model, *pods, {command.group, command.rank});
  if (!chosen) return std::unexpected(chosen.error());

  const kube::LogOptions options{
      .follow = command.follow, .previous = command.previous, .tail_lines = command.tail};
  Output output(io.out);
  if (command.follow) {
    std::vector<std::jthread> threads;
    for (const LogPod& pod : *chosen) {
      threads.emplace_back([&] { follow(cluster, pod, options, output); });
    }
    threads.clear();  // waits for all of them
  } else {
    for (const LogPod& pod : *chosen) print(cluster, pod, options, output);
  }
  if (auto error = output.error()) return std::unexpected(*std::move(error));
  return kExitDone;
}

}  // namespace dsm::ctl
