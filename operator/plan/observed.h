// What one decision about one model looks at, and how the raw objects of the API server and of the
// worker become it. Everything here is a value: the runtime fills an Observed from its caches and
// hands it to plan(); nothing in it points back. No I/O, no clock, no threading concerns.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace dsm::plan {

// The fields of a worker pod that a decision reads; this is what a store keeps of a pod.
struct PodView {
  std::string name;
  std::string uid;
  std::string owner_uid;  // uid of the controlling owner; empty: none
  std::string revision;   // from the labels; group and index are -1 when the label is no number
  int group = -1;
  int index = -1;

  std::string phase;  // Pending, Running, Succeeded, Failed, Unknown
  std::string node;
  std::string ip;
  WallTime created;
  // When it should be gone (deletionTimestamp counts the grace period in); absent: not deleted.
  std::optional<WallTime> deletion;
  bool ready = false;                 // condition Ready,
  std::optional<WallTime> ready_at;   // and since when it is True
  bool running = false;               // the worker container runs now
  int restarts = 0;                   // of the worker container
  std::optional<WallTime> started;    // when the container that runs now began
  std::optional<WallTime> scheduled;  // when it got its node
  bool sandboxed = true;  // its volumes and network are there, or the kubelet does not say

  std::string gate;     // a scheduling gate: the scheduler does not look at it yet; empty: none
  bool queued = false;  // Kueue's finalizer holds it, also when it has ended
  bool bound_together = false;  // it names the PodGroup of its group
  bool drain = false;           // its group is asked to go: api::kDrainAnnotation

  // Since when the scheduler finds no node, and its words; absent: scheduled or not yet tried.
  std::optional<WallTime> unschedulable_since;
  std::string unschedulable_message;

  std::string waiting_reason;  // CrashLoopBackOff, ImagePullBackOff, ContainerCreating, ...
  std::string waiting_message;
  std::string exit_reason;  // how the container ended last: Error, OOMKilled, Completed, ...
  int exit_code = 0;
  std::string exit_message;   // its termination message, or its last lines
  std::string_view exit_why;  // of api::kWorkerReasons, where the message begins with it
  std::string status_reason;  // of the pod: Evicted, NodeLost, ...
  std::string status_message;

  bool operator==(const PodView&) const = default;
};

// Reads a Pod object. Never fails: what is missing stays at its default.
PodView pod_view(const nlohmann::json& pod);

struct Taint {
  std::string key;
  std::string value;
  std::string effect;  // NoSchedule, PreferNoSchedule or NoExecute

  bool operator==(const Taint&) const = default;
};

// The fields of a node that a decision reads.
struct NodeView {
  std::string name;
  bool ready = false;          // condition Ready
  bool unschedulable = false;  // cordoned
  std::vector<Taint> taints;

  bool operator==(const NodeView&) const = default;
};

// Reads a Node object. Never fails: what is missing stays at its default.
NodeView node_view(const nlohmann::json& node);

// A rank's device that is not well, as its leader tells.
struct SickDevice {
  int rank = 0;
  std::string name;    // "GPU 3"
  std::string health;  // Degraded or Fatal
  std::vector<std::string> problems;

  bool operator==(const SickDevice&) const = default;
};

// One line of a leader's status stream.
struct LeaderStatus {
  std::string phase;  // Starting, Rendezvous, Loading, Ready, Asleep, Draining, Failed
  std::string reason;
  std::string message;
  std::string last_error;
  long loaded_bytes = 0;
  long total_bytes = 0;
  long queue_depth = 0;
  long queue_age_s = 0;  // of the oldest request that waits
  long running = 0;
  long kv_used = 0;
  long kv_total = 0;
  double tokens_per_second = 0;
  long max_model_len = 0;
  bool told_to_sleep = false;
  std::string keys;              // which API keys it was told: operator/plan/tenant_keys.h
  int ranks = 0;                 // that it tells of: all of the group's
  std::vector<SickDevice> sick;  // by rank
  WallTime received;             // set by the reader of the stream

  bool operator==(const LeaderStatus&) const = default;
};

// Reads a line of GET /internal/status; kInvalid when it is not a JSON object.
Result<LeaderStatus> leader_status(std::string_view line, WallTime received);

// A status line older than this says nothing any more.
inline constexpr Seconds kStatusStale{10};

// A write of an earlier plan that the API server refused.
struct WriteFailure {
  std::string kind;  // Pod, Service, ControllerRevision, ... of a child
  std::string name;
  ErrorKind error = ErrorKind::kInternal;  // kDenied: quota or admission; kConflict: name taken
  std::string message;                     // the API server's words
  WallTime time;
  std::optional<WallTime> since = {};  // of the first one in a row; absent: this is the first
};

// How this operator was started.
struct Config {
  std::string worker_image;                  // for models that name none
  std::string worker_image_cuda = {};        // the same of those on GPUs
  std::string rdma_resource = "rdma/hca";    // what a pod asks for to talk by RDMA
  std::string gpu_runtime_class = {};        // of pods on GPUs; empty: the node's default
  std::string pull_policy = "IfNotPresent";  // IfNotPresent, Always or Never
  // Pods may be put into queues of Kueue: the rights are there to take them out again.
  bool kueue = true;
  // Nodes are seen. Without them a node that is drained or does not answer is not noticed, and no
  // PodDisruptionBudgets are made: nobody would move a group out of the way of a drain.
  bool watches_nodes = false;
};

// Which of Kubernetes' metrics APIs is served by this operator, so that a HorizontalPodAutoscaler
// gets its numbers from there.
struct MetricsApi {
  enum class State {
    kPending,  // not known yet
    kOff,      // none
    kOurs,     // external.metrics.k8s.io
    kCustom,   // custom.metrics.k8s.io, since the other one is somebody else's
    kForeign   // none, since both are
  };
  State state = State::kPending;
  std::string owner = {};         // kCustom, kForeign: who serves external.metrics.k8s.io,
  std::string custom_owner = {};  // kForeign: and who custom.metrics.k8s.io

  bool operator==(const MetricsApi&) const = default;
};

// What the tenant of the model's namespace says about the model.
struct TenantGrant {
  std::string not_allowed;  // why the model may not be as its spec says; empty: it may
  int groups = 0;           // that the tenant's budget lets run
  std::string waits_for;    // why these are fewer than wanted, as a sentence
  std::string tenant = {};  // its name
  // What groups that are begun now may request together, also one more for a while: resource ->
  // thousandths of it. Resources that are not here have no limit.
  std::map<std::string, double> room = {};
  std::optional<WallTime> no_room_since = {};  // for a group that is missing
  std::string priority_class;                  // of its pods; empty: none
  // Of its kept revisions, where somebody asks to go back to one: those that it may not be.
  std::vector<std::string> revisions_not_allowed = {};
  bool keys_required = true;  // its leaders answer nobody before they were told the API keys
};

struct Observed {
  // The DeepSeekModel as the API server gave it: metadata, spec, status.
  nlohmann::json model;
  // Every pod in the model's namespace with the label deepseek-operator.io/model=<name>.
  std::vector<PodView> pods;
  // The nodes that the pods are on, by name, as far as they are known.
  std::map<std::string, NodeView> nodes;
  // Services, ControllerRevisions, PodDisruptionBudgets, PodGroups and the HorizontalPodAutoscaler
  // of the model (watched by the label managed-by), and the Secret <model>-internal (read by name;
  // its `data` is not needed here). Each with apiVersion and kind, which items of a list lack. When
  // a POST of a child was refused because the name is taken, the runtime reads that object and puts
  // it here too, whoever made it.
  std::vector<nlohmann::json> children;
  // The newest line of each leader, by the uid of its pod.
  std::map<std::string, LeaderStatus> leaders;
  // When this process began to lead, and so to count on what leaders say; absent: long ago.
  std::optional<WallTime> leads_since;
  // The newest failure per kind and name; forgotten when a write of the same object succeeds or
  // after ten minutes.
  std::vector<WriteFailure> failures;
  // 64 hexadecimal digits, fresh for every Observed; used only when the token Secret is made.
  std::string fresh_token;
  // When this process last wrote the model's status; absent: never.
  std::optional<WallTime> status_written;
  // What the groups that wait in a queue of Kueue wait for, in its words, by their name.
  std::map<std::string, std::string> queue_words;
  // The cluster has the kind PodGroup of the coscheduling plugin, and its PodGroups are known.
  bool pod_groups = false;
  MetricsApi metrics_api;
  std::optional<TenantGrant> tenant;  // absent: the namespace has none
  WallTime now;
  Config config;
};

}  // namespace dsm::plan
