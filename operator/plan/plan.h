// plan(): one look at one model -> everything that is to be done now. Pure: no I/O, no clock, no
// randomness, no memory between calls; what must be remembered is in the model's status or can be
// read off its pods.
//
// How the runtime carries a Plan out, in this order, each step only when it holds the lease:
//   1. remove        DELETE with preconditions.uid. 404 and 409 (another uid) mean done.
//      release       takes a finalizer off a pod, by a patch with its uid. 404 and 422 mean done.
//   2. children      kCreate: POST. kApply: server-side apply with force, field manager
//                    api::kFieldManager. kMerge: JSON merge patch, for what apply cannot mend. Both
//                    carry metadata.uid, so that a child that was deleted meanwhile is not made
//                    again, and another one not changed, under a stale plan.
//   3. create_pods   POST. 409 AlreadyExists is reported as a WriteFailure (kConflict) and is
//                    harmless: names are deterministic.
//   4. status        the whole status: server-side apply on /status with force. Left out:
//   unchanged.
//   5. events        events.k8s.io/v1, regarding the model.
//   6. requeue_after look again after this time even when nothing is seen to change; zero: not
//   needed.
// A refused write does not stop the later ones; it is put into Observed::failures (steps 1-3) and
// the key is retried with backoff for kTransient. An API server that does not answer, or a lost
// lease, ends the execution early. A status conflict is a retry.
//
// Own writes are seen before the next look: the runtime puts the answers of its POSTs, applies and
// DELETEs (a pod's answer carries deletionTimestamp) into its store before plan() is called again
// for the same model, or waits until the watch has brought them. Without this a scale-down could
// choose a second victim from a stale store.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct Removal {
  std::string api_version;  // "v1", "apps/v1", "autoscaling/v2"
  std::string kind;         // Pod, ControllerRevision or HorizontalPodAutoscaler
  std::string name;
  std::string uid;
  std::string reason;  // for the log
};

// A finalizer to be taken off a pod.
struct Release {
  std::string pod;
  std::string uid;
  std::string finalizer;

  bool operator==(const Release&) const = default;
};

struct ChildWrite {
  enum class Verb { kCreate, kApply, kMerge };
  Verb verb = Verb::kCreate;
  std::string api_version;
  std::string kind;  // Service, Secret, ControllerRevision, HorizontalPodAutoscaler
  std::string name;
  nlohmann::json object;  // complete, with apiVersion, kind, metadata.namespace; kMerge: the patch
};

struct EventNote {
  bool warning = false;
  std::string reason;   // CamelCase
  std::string action;   // CamelCase: what the operator was doing
  std::string message;  // at most 1024 bytes
};

struct Plan {
  std::vector<Removal> remove;
  std::vector<Release> release;
  std::vector<ChildWrite> children;
  std::vector<nlohmann::json> create_pods;
  std::optional<nlohmann::json> status;
  std::vector<EventNote> events;
  Millis requeue_after{0};
  // A group is missing, and the budget of the model's tenant has no room for it.
  bool lacks_room = false;

  // No write at all: the model is as it should be, or there is nothing to do but wait.
  bool quiet() const {
    return remove.empty() && release.empty() && children.empty() && create_pods.empty() &&
           !status && events.empty();
  }
};

// Never fails: what is wrong with the spec or the cluster is said in the status.
// A model that is being deleted gets a plan that is empty but for `release`: its children are
// garbage collected.
Plan plan(const Observed& observed);

}  // namespace dsm::plan
