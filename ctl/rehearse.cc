#include "ctl/rehearse.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "ctl/objects.h"
#include "operator/api/names.h"
#include "operator/api/reasons.h"
#include "operator/api/spec.h"
#include "operator/plan/memory.h"
#include "operator/plan/new_child.h"
#include "operator/plan/plan.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

// Looks in a row that only wait, after which nothing more is expected.
constexpr int kMostWaits = 3;

std::set<std::string> groups_of(const plan::Observed& observed) {
  std::set<std::string> names;
  const std::string model = name_of(observed.model);
  const std::string uid = uid_of(observed.model);
  for (const plan::PodView& pod : observed.pods) {
    if (pod.owner_uid != uid || pod.group < 0) continue;
    names.insert(api::group_name(model, pod.revision, pod.group));
  }
  return names;
}

class World {
 public:
  explicit World(plan::Observed observed) : o_(std::move(observed)) {}

  const plan::Observed& observed() const { return o_; }

  struct Done {
    std::vector<std::string> lines;
    bool wrote = false;  // something other than the status
  };

  Done carry_out(const plan::Plan& next) {
    Done done;
    done.wrote = !next.remove.empty() || !next.create_pods.empty();
    for (const plan::Removal& removal : next.remove) {
      std::erase_if(o_.pods, [&](const auto& pod) { return pod.uid == removal.uid; });
      std::erase_if(o_.children, [&](const json& child) { return uid_of(child) == removal.uid; });
      if (removal.kind != "Pod") {
        done.lines.push_back("removing " + removal.kind + " " + removal.name + ": " +
                             removal.reason);
      }
    }
    for (const plan::ChildWrite& child : next.children) write(child, done);
    for (const json& pod : next.create_pods) add_pod(pod);
    if (next.status) o_.model["status"] = *next.status;
    for (const plan::EventNote& event : next.events) {
      const bool of_a_group = event.reason == "GroupCreated" || event.reason == "GroupRemoved" ||
                              event.reason == "PodReplaced";
      if (of_a_group) done.lines.push_back(event.message);
    }
    return done;
  }

  // Time goes on and everything goes well.
  void live(Millis wait) {
    o_.now += std::max<Millis>(wait, Seconds(1));
    std::erase_if(o_.pods, [](const plan::PodView& pod) { return pod.deletion.has_value(); });
    for (plan::PodView& pod : o_.pods) {
      if (pod.phase == "Failed" || pod.phase == "Succeeded") continue;  // it is removed
      pod.phase = "Running";
      pod.ready = pod.running = true;
      if (pod.node.empty()) pod.node = "some-node";
      pod.unschedulable_since.reset();
      pod.waiting_reason.clear();
      pod.exit_reason.clear();
      pod.exit_code = 0;
      if (pod.index != 0) continue;
      plan::LeaderStatus& said = o_.leaders[pod.uid];
      said.phase = "Ready";
      said.received = o_.now;
    }
  }

 private:
  void write(const plan::ChildWrite& child, Done& done) {
    const auto there = std::ranges::find_if(o_.children, [&](const json& other) {
      return text_at(other, "/kind") == child.kind && name_of(other) == child.name;
    });
    const bool create = plan::makes(child);
    if (create && there != o_.children.end()) return refuse(child);
    done.wrote = true;
    // That a revision has served is noted on it: nothing that a person waits for.
    if (create || child.kind != "ControllerRevision") {
      done.lines.push_back((create ? "making " : "mending ") + child.kind + " " + child.name);
    }
    if (create) {
      json object = child.object;
      object["metadata"]["uid"] = new_uid();
      o_.children.push_back(std::move(object));
    } else if (there != o_.children.end()) {
      // An apply takes away what its manager does not say any more: the selector is said whole.
      if (child.object.contains(json::json_pointer("/spec/selector"))) {
        (*there)["spec"].erase("selector");
      }
      there->merge_patch(child.object);
    }
  }

  // The name is somebody else's.
  void refuse(const plan::ChildWrite& child) {
    std::erase_if(o_.failures, [&](const plan::WriteFailure& failure) {
      return failure.kind == child.kind && failure.name == child.name;
    });
    o_.failures.push_back({child.kind, child.name, ErrorKind::kConflict, "already exists", o_.now});
  }

  void add_pod(const json& object) {
    plan::PodView pod = plan::pod_view(object);
    pod.uid = new_uid();
    pod.created = o_.now;
    pod.phase = "Pending";
    o_.pods.push_back(std::move(pod));
  }

  std::string new_uid() { return "rehearsed-" + std::to_string(++uids_); }

  plan::Observed o_;
  int uids_ = 0;
};

// What nobody but a person can mend.
std::string problem_in(const json& status_json) {
  const api::ModelStatus status = api::parse_status(status_json);
  const api::Condition* stalled = api::find_condition(status, api::kStalled);
  const bool stands =
      stalled != nullptr && stalled->status == api::Truth::kTrue &&
      (stalled->reason == api::kInvalidSpec || stalled->reason == api::kNameConflict ||
       stalled->reason == api::kDoesNotFit || stalled->reason == api::kNotAllowed);
  return stands ? stalled->message : "";
}

// What the tenant's budget has no room for.
std::string waits_in(const json& status_json) {
  const api::ModelStatus status = api::parse_status(status_json);
  const api::Condition* ready = api::find_condition(status, api::kReady);
  const bool waits = ready != nullptr && ready->reason == api::kQuotaExceeded;
  return waits ? ready->reason + ": " + ready->message : "";
}

std::string memory_in(const json& model) {
  const auto spec = api::parse_spec(part(model, "/spec"));
  if (!spec || spec->sizing.model_config.empty()) return "";
  const auto memory = plan::memory_of(*spec);
  if (memory) return memory->sentence;
  return "is not checked: spec.template.resources.limits.memory is not said, or the sizes of this "
         "family are not known here";
}

}  // namespace

Rehearsal rehearse(plan::Observed observed) {
  Rehearsal out;
  out.revision_before = text_at(observed.model, "/status/updatedRevision");
  out.memory = memory_in(observed.model);
  observed.status_written.reset();
  const std::set<std::string> before = groups_of(observed);
  const json& replicas = part(observed.model, "/spec/replicas");
  out.desired = replicas.is_number_integer() ? replicas.get<int>() : 1;

  out.paused = part(observed.model, "/spec/rollout/paused") == json(true);

  World world(std::move(observed));
  // Each group is made, or removed in two looks; a rollout does one after the other.
  const int most = 20 + 4 * (static_cast<int>(before.size()) + std::max(0, out.desired));
  int waits = 0;
  out.settled = false;
  for (int look = 0; look < most && waits < kMostWaits && !out.settled; ++look) {
    const plan::Plan next = plan::plan(world.observed());
    World::Done done = world.carry_out(next);
    out.settled = next.quiet() && next.requeue_after == Millis(0);
    waits = done.wrote ? 0 : waits + 1;
    if (!done.lines.empty()) out.steps.push_back(std::move(done.lines));
    world.live(done.wrote ? Millis(0) : next.requeue_after);
  }
  const json& status = part(world.observed().model, "/status");
  out.problem = problem_in(status);
  out.waits = waits_in(status);
  out.revision = text_at(status, "/updatedRevision");
  const std::set<std::string> after = groups_of(world.observed());
  std::ranges::set_difference(after, before, std::back_inserter(out.made));
  std::ranges::set_difference(before, after, std::back_inserter(out.removed));
  std::ranges::set_intersection(before, after, std::back_inserter(out.kept));
  return out;
}

}  // namespace dsm::ctl
