#include "ctl/tree_text.h"

namespace dsm::ctl {
namespace {

constexpr int kBarCells = 20;

void add(Line& line, const std::string& text, Colour colour = Colour::kPlain) {
  if (text.empty()) return;
  if (!line.empty()) line.push_back(Span{"  "});
  line.push_back(Span{printable(text), colour});
}

std::string reason_and_message(const std::string& reason, const std::string& message) {
  if (reason.empty() || message.empty()) return reason + message;
  return reason + ": " + message;
}

Colour colour_of_phase(const std::string& phase) {
  if (phase == "Ready") return Colour::kGood;
  return phase == "Failed" ? Colour::kBad : Colour::kBusy;
}

Colour colour_of_state(const std::string& state) {
  if (state == "Ready") return Colour::kGood;
  const bool on_its_way = state == "Running" || state == "Pending" || state == "Terminating" ||
                          state == "ContainerCreating" || state == "PodInitializing";
  return on_its_way ? Colour::kBusy : Colour::kBad;
}

// Ready is good when it is True, the other three when they are False.
Colour colour_of(const api::Condition& condition) {
  using api::Truth;
  if (condition.status == Truth::kUnknown) return Colour::kBusy;
  const bool is = condition.status == Truth::kTrue;
  if (condition.type == api::kReady) return is ? Colour::kGood : Colour::kBad;
  if (!is) return Colour::kGood;
  return condition.type == api::kProgressing ? Colour::kBusy : Colour::kBad;
}

Line head(const ModelTree& tree, WallTime now) {
  const api::ModelStatus& s = tree.status;
  Line line;
  add(line, tree.name);
  add(line, "namespace " + tree.ns, Colour::kFaint);
  const bool all = s.ready_replicas == tree.desired;
  add(line, "ready " + std::to_string(s.ready_replicas) + "/" + std::to_string(tree.desired),
      all ? Colour::kGood : Colour::kBusy);
  add(line, "queue " + std::to_string(s.queue_depth));
  if (!s.updated_revision.empty()) {
    const bool rolling = !s.current_revision.empty() && s.current_revision != s.updated_revision;
    add(line, "revision " + (rolling ? s.current_revision + " -> " : "") + s.updated_revision);
  }
  add(line, "age " + age_text(tree.created, now), Colour::kFaint);
  if (tree.paused) add(line, "paused", Colour::kBusy);
  if (tree.sleeps) add(line, "to sleep", Colour::kBusy);
  if (tree.going) add(line, "being deleted", Colour::kBad);
  if (!tree.going && s.observed_generation < tree.generation) {
    add(line, "the operator has not looked at the last change yet", Colour::kBusy);
  }
  return line;
}

Line condition_line(const api::Condition& condition) {
  std::string type = condition.type;
  if (type.size() < api::kProgressing.size()) type.resize(api::kProgressing.size(), ' ');
  std::string truth(to_string(condition.status));
  truth.resize(to_string(api::Truth::kUnknown).size(), ' ');
  Line line;
  add(line, type);
  add(line, truth, colour_of(condition));
  add(line, reason_and_message(condition.reason, condition.message));
  return line;
}

Line group_line(const api::GroupStatus& group, const Style& style) {
  Line line;
  add(line, group.name);
  add(line, group.phase.empty() ? "not in the status yet" : group.phase,
      colour_of_phase(group.phase));
  if (group.phase != "Ready" && group.total_bytes > 0 && group.loaded_bytes < group.total_bytes) {
    const double part =
        static_cast<double>(group.loaded_bytes) / static_cast<double>(group.total_bytes);
    add(line, progress_bar(part, kBarCells, style), Colour::kBusy);
    add(line, std::to_string(static_cast<int>(part * 100)) + "%");
  }
  if (group.restarts > 0) add(line, std::to_string(group.restarts) + " restarts", Colour::kBusy);
  add(line, reason_and_message(group.reason, group.message));
  return line;
}

Line pod_line(const PodBranch& pod) {
  Line line;
  add(line, pod.name);
  add(line, pod.role, Colour::kFaint);
  add(line, pod.state, colour_of_state(pod.state));
  add(line, pod.node.empty() ? "no node" : pod.node);
  if (pod.restarts > 0) add(line, std::to_string(pod.restarts) + " restarts", Colour::kBusy);
  add(line, pod.message);
  return line;
}

// One that is not well.
Line device_line(const api::DeviceStatus& device) {
  std::string problems;
  for (const std::string& problem : device.problems) {
    problems += (problems.empty() ? "" : ", ") + problem;
  }
  Line line;
  add(line, device.name);
  add(line, "of rank " + std::to_string(device.rank), Colour::kFaint);
  add(line, device.health, Colour::kBad);
  add(line, device.node.empty() ? "no node" : device.node);
  add(line, problems);
  return line;
}

}  // namespace

std::string tree_text(const ModelTree& tree, WallTime now, const Style& style) {
  Node root{head(tree, now), {}};
  for (const api::Condition& condition : tree.status.conditions) {
    root.children.push_back({condition_line(condition), {}});
  }
  for (const GroupBranch& group : tree.groups) {
    Node node{group_line(group.status, style), {}};
    for (const PodBranch& pod : group.pods) node.children.push_back({pod_line(pod), {}});
    for (const api::DeviceStatus& device : group.status.devices) {
      node.children.push_back({device_line(device), {}});
    }
    root.children.push_back(std::move(node));
  }
  return to_text(root, style);
}

}  // namespace dsm::ctl
