// `dsmctl drain`: asks the operator to move one group, or all groups of a node. It evicts and
// deletes nothing itself.
#include <functional>
#include <map>
#include <set>

#include "ctl/commands.h"
#include "ctl/drain.h"
#include "ctl/objects.h"
#include "kube/sleep.h"
#include "operator/api/names.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

constexpr Millis kLookEvery{1000};

// How each group is that is still there, by a name that says where.
using Remaining = std::map<std::string, std::string>;
using Look = std::function<Result<Remaining>()>;

void tell(const Remaining& before, const Remaining& now, Io& io) {
  for (const auto& [group, state] : before) {
    if (!now.contains(group)) io.out << printable(group + ": has gone") << "\n";
  }
  for (const auto& [group, state] : now) {
    const auto said = before.find(group);
    if (said != before.end() && said->second == state) continue;
    io.out << printable(group + ": " + state) << "\n";
  }
  io.out << std::flush;
}

std::string text_of(const Remaining& remaining) {
  std::string text;
  for (const auto& [group, state] : remaining) {
    text += (text.empty() ? "" : "; ") + group + ": " + state;
  }
  return text;
}

// Until nothing remains; says each change.
Result<int> wait_until_gone(const Look& look, int timeout_s, Cluster& cluster, Io& io) {
  Clock& clock = cluster.client().clock();
  const TimePoint end = clock.now() + Seconds(timeout_s);
  Remaining before;
  while (true) {
    Result<Remaining> now = look();
    if (!now) return std::unexpected(now.error());
    tell(before, *now, io);
    if (now->empty()) return kExitDone;
    if (timeout_s > 0 && clock.now() >= end) {
      return fail(ErrorKind::kTransient, "after " + std::to_string(timeout_s) +
                                             " s there is still " + text_of(*now) +
                                             ". The operator goes on with it; --cancel takes it "
                                             "back");
    }
    before = *std::move(now);
    kube::sleep_for(clock, kLookEvery, {});
  }
}

// The pods that are left of those that the group had; another group may have its name later.
Result<Remaining> left_of(const GroupPods& group, const std::string& model, Cluster& cluster) {
  const auto pods = cluster.pods(model);
  if (!pods) return std::unexpected(pods.error());
  std::set<std::string> uids;
  for (const json& pod : *pods) uids.insert(uid_of(pod));
  bool there = false;
  for (const json& pod : group.pods) there = there || uids.contains(uid_of(pod));
  if (!there) return Remaining{};
  const auto object = cluster.model(model);
  if (!object) return std::unexpected(object.error());
  return Remaining{
      {group.name, drain_state(api::parse_status(part(*object, "/status")), group.name)}};
}

Result<int> drain_group(const DrainCommand& command, Cluster& cluster, Io& io) {
  const Result<json> model = cluster.model(command.model);
  if (!model) return std::unexpected(model.error());
  const auto pods = cluster.pods(command.model);
  if (!pods) return std::unexpected(pods.error());
  const Result<GroupPods> group = choose_group(*model, *pods, command.group);
  if (!group) return std::unexpected(group.error());
  if (command.cancel && !is_asked_to_go(*group)) {
    io.out << "nobody asks group " << group->name << " to go\n";
    return kExitDone;
  }
  const WallTime now = cluster.client().clock().wall_now();
  for (const json& pod : group->pods) {
    const auto done = cluster.patch_pod(name_of(pod), drain_patch(pod, !command.cancel, now));
    if (!done && done.error().kind != ErrorKind::kNotFound) return std::unexpected(done.error());
  }
  if (command.cancel) {
    io.out << "group " << group->name << " may stay\n";
    return kExitDone;
  }
  io.out << "group " << group->name
         << " is asked to go: it serves until another one does in its place\n";
  if (command.wait) {
    return wait_until_gone([&] { return left_of(*group, command.model, cluster); },
                           command.timeout_s, cluster, io);
  }
  io.out << "look on with: dsmctl status " << command.model << " -n " << cluster.ns()
         << " --watch\n";
  return kExitDone;
}

// Groups with a pod on the node, of all namespaces.
Result<Remaining> left_on(const std::string& node, Cluster& cluster) {
  const auto pods = cluster.pods_on(node);
  if (!pods) return std::unexpected(pods.error());
  Remaining out;
  std::map<std::string, api::ModelStatus> statuses;
  for (const json& pod : *pods) {
    const std::string ns = namespace_of(pod);
    const std::string model = label(pod, api::kModelLabel);
    const std::string group = api::group_of_pod(name_of(pod));
    const std::string key = ns + "/" + model;
    if (!statuses.contains(key)) {
      const auto object = cluster.in(ns).model(model);
      if (!object && object.error().kind != ErrorKind::kNotFound) {
        return std::unexpected(object.error());
      }
      statuses[key] = object ? api::parse_status(part(*object, "/status")) : api::ModelStatus{};
    }
    out[ns + "/" + group] = drain_state(statuses[key], group);
  }
  return out;
}

Result<int> drain_node(const DrainCommand& command, Cluster& cluster, Io& io) {
  const auto node = cluster.cordon(command.node, !command.cancel);
  if (!node) return std::unexpected(node.error());
  if (command.cancel) {
    io.out << "node " << command.node << " takes pods again, and its groups may stay\n";
    return kExitDone;
  }
  io.out << "node " << command.node << " is cordoned\n";
  const Result<int> code = wait_until_gone([&] { return left_on(command.node, cluster); },
                                           command.timeout_s, cluster, io);
  if (code) {
    io.out << "no pod of a model is on node " << command.node
           << "; it stays cordoned until dsmctl drain --cancel --node " << command.node << "\n";
  }
  return code;
}

}  // namespace

Result<int> run(const DrainCommand& command, Cluster& cluster, Io& io) {
  return command.node.empty() ? drain_group(command, cluster, io)
                              : drain_node(command, cluster, io);
}

}  // namespace dsm::ctl
