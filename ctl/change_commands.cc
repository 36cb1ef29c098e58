// The commands that change a model. They say what they changed and do not wait for it.
#include "ctl/commands.h"
#include "ctl/objects.h"
#include "ctl/revisions.h"
#include "operator/plan/sleep.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

void say_how_to_watch(const std::string& model, const Cluster& cluster, Io& io) {
  io.out << "look on with: dsmctl status " << model << " -n " << cluster.ns() << " --watch\n";
}

// The operator goes back, or on again, by itself.
Result<int> keep_spec(const RollbackCommand& command, const json& model, Cluster& cluster, Io& io) {
  if (command.undo) {
    const json patch = undo_patch(model);
    if (patch.is_null()) {
      return fail(ErrorKind::kInvalid, command.model + " is not rolled back with --keep-spec");
    }
    const Result<json> after = cluster.patch_model(command.model, patch);
    if (!after) return std::unexpected(after.error());
    io.out << command.model << ": what the spec asks for is rolled out again\n";
  } else {
    const Result<json> patch = keep_spec_patch(model, cluster.client().clock().wall_now());
    if (!patch) return std::unexpected(patch.error());
    const Result<json> after = cluster.patch_model(command.model, *patch);
    if (!after) return std::unexpected(after.error());
    io.out << command.model << ": the operator goes back from revision "
           << text_at(model, "/status/updatedRevision")
           << "; the spec stays as it is. Edit it (in git), or --undo this\n";
  }
  say_how_to_watch(command.model, cluster, io);
  return kExitDone;
}

}  // namespace

Result<int> run(const RestartCommand& command, Cluster& cluster, Io& io) {
  const Result<json> model = cluster.model(command.model);
  if (!model) return std::unexpected(model.error());
  const json patch = restart_patch(*model, cluster.client().clock().wall_now());
  const Result<json> after = cluster.patch_model(command.model, patch);
  if (!after) return std::unexpected(after.error());
  io.out << "all groups of " << command.model << " are made anew, one after the other\n";
  if (is_paused(*after)) {
    io.out << "its rollout is paused: nothing happens before dsmctl resume " << command.model
           << "\n";
  }
  say_how_to_watch(command.model, cluster, io);
  return kExitDone;
}

Result<int> run(const RollbackCommand& command, Cluster& cluster, Io& io) {
  const Result<json> model = cluster.model(command.model);
  if (!model) return std::unexpected(model.error());
  if (command.keep_spec || command.undo) return keep_spec(command, *model, cluster, io);
  const auto objects = cluster.revisions(command.model);
  if (!objects) return std::unexpected(objects.error());
  const std::vector<KeptRevision> kept = kept_revisions(*model, *objects);
  if (command.list) {
    io.out << history_text(*model, kept, cluster.client().clock().wall_now(), io.style);
    return kExitDone;
  }
  const Result<Rollback> rollback = roll_back(*model, kept, command.to);
  if (!rollback) return std::unexpected(rollback.error());
  io.out << command.model << ": revision "
         << (rollback->from.empty() ? "(the spec is wrong)" : rollback->from) << " -> "
         << rollback->to << "\n";
  for (const Change& change : rollback->changes) io.out << "  " << to_text(change) << "\n";
  if (command.dry_run) {
    io.out << "nothing was changed (--dry-run)\n";
    return kExitDone;
  }
  const Result<json> after = cluster.patch_model(command.model, rollback->patch);
  if (!after) return std::unexpected(after.error());
  say_how_to_watch(command.model, cluster, io);
  return kExitDone;
}

Result<int> run(const PauseCommand& command, Cluster& cluster, Io& io) {
  const Result<json> model = cluster.model(command.model);
  if (!model) return std::unexpected(model.error());
  if (is_paused(*model) == command.paused) {
    io.out << command.model << (command.paused ? " is paused already\n" : " is not paused\n");
    return kExitDone;
  }
  const Result<json> after =
      cluster.patch_model(command.model, pause_patch(*model, command.paused));
  if (!after) return std::unexpected(after.error());
  // A server whose CRD does not know the field drops it without a word.
  if (is_paused(*after) != command.paused) {
    return fail(ErrorKind::kInvalid,
                "the CRD of this cluster has no spec.rollout.paused: upgrade the operator's chart");
  }
  io.out << "the rollout of " << command.model
         << (command.paused ? " is paused; go on with: dsmctl resume " + command.model + "\n"
                            : std::string(" goes on\n"));
  return kExitDone;
}

Result<int> run(const SleepCommand& command, Cluster& cluster, Io& io) {
  const Result<json> model = cluster.model(command.model);
  if (!model) return std::unexpected(model.error());
  if (plan::wants_sleep(*model) == command.sleep) {
    io.out << command.model << (command.sleep ? " sleeps already\n" : " does not sleep\n");
    return kExitDone;
  }
  const Result<json> after = cluster.patch_model(command.model, sleep_patch(*model, command.sleep));
  if (!after) return std::unexpected(after.error());
  // A server whose CRD does not know the field drops it without a word.
  if (plan::wants_sleep(*after) != command.sleep) {
    return fail(ErrorKind::kInvalid,
                "the CRD of this cluster has no spec.sleep: upgrade the operator's chart");
  }
  io.out << command.model
         << (command.sleep ? " finishes its requests and sleeps; wake it with: dsmctl wake " +
                                 command.model + "\n"
                           : std::string(" wakes\n"));
  say_how_to_watch(command.model, cluster, io);
  return kExitDone;
}

}  // namespace dsm::ctl
