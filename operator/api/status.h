// What the operator says about a DeepSeekModel, as a typed value with its JSON form.
// Plain values, no threading concerns.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace dsm::api {

enum class Truth { kUnknown, kFalse, kTrue };
std::string_view to_string(Truth truth);

// metav1.Condition. last_transition moves only when `status` does.
struct Condition {
  std::string type;  // kReady, kProgressing, kDegraded, kStalled or kScalingActive
  Truth status = Truth::kUnknown;
  long observed_generation = 0;
  std::string last_transition;  // RFC 3339
  std::string reason;           // CamelCase
  std::string message;          // a sentence that a person can act on
};

inline constexpr std::string_view kReady = "Ready";
inline constexpr std::string_view kProgressing = "Progressing";
inline constexpr std::string_view kDegraded = "Degraded";
inline constexpr std::string_view kStalled = "Stalled";
// Only of a model with spec.scaling.
inline constexpr std::string_view kScalingActive = "ScalingActive";

// What a rank computes on, where that is not well. States only: what it shows in numbers is in the
// status stream and in the worker's metrics.
struct DeviceStatus {
  int rank = 0;
  std::string name;                        // "GPU 3", as its node numbers them
  std::string node;                        // empty: not known
  std::string health;                      // Degraded or Fatal
  std::vector<std::string> problems = {};  // RowRemapPending, Xid63, ...: the worst first

  bool operator==(const DeviceStatus&) const = default;
};

struct GroupStatus {
  std::string name;      // <model>-<revision>-<group>
  std::string revision;  // the revision its pods were made from
  std::string phase;     // Pending, Starting, Loading, Ready, Asleep, Draining, Failed
  std::string reason;    // why it is not ready; empty when it is
  std::string message;
  std::vector<std::string> nodes;  // distinct, in the order of the pods
  long loaded_bytes = 0;
  long total_bytes = 0;
  int restarts = 0;                        // of all its containers
  int recent_restarts = 0;                 // those since it was last stable
  bool served = false;                     // it has been ready
  std::vector<DeviceStatus> devices = {};  // those of its ranks that are not well, by rank
};

// A node on which a group failed: new pods rather go elsewhere until then.
struct AvoidedNode {
  std::string name;
  std::string until;  // RFC 3339
};

// What the ready groups offer together.
struct Capacity {
  long max_context = 0;        // tokens of one request: prompt and answer
  long kv_tokens = 0;          // tokens that the KV caches hold
  long tokens_per_second = 0;  // highest rate seen since the set of groups last changed
};

// Set while the operator waits before it tries again what failed before.
struct Backoff {
  std::string reason;   // CrashLoop, PodLost, SurgeUnschedulable, DrainBlocked or Unschedulable
  int count = 0;        // how often it was tried
  std::string until;    // RFC 3339
  std::string message;  // what happened the last time
};

// What became of the model's rollback annotation, as long as it is there.
struct Rollback {
  std::string request;  // the annotation's value: one that is asked for again has another
  std::string from;     // revision that is not run although the spec asks for it
  std::string to;       // revision that is run in its place; empty: none is
  bool active = false;  // false: it was refused, or is over because the spec was edited
  std::string message;
};

struct ModelStatus {
  long observed_generation = 0;
  int replicas = 0;  // groups, without surge groups and those that are going
  int ready_replicas = 0;
  int updated_replicas = 0;  // of replicas: those of updated_revision
  std::string ready;         // "2/2", for the printer column
  std::string selector;      // leader pods only: one pod per group
  long queue_depth = 0;
  std::string current_revision;  // what serves: the last revision that was rolled out whole
  std::string updated_revision;  // what the spec asks for, or was gone back to
  std::string endpoint;          // http://<model>.<namespace>.svc
  Capacity capacity;
  int cold_start_seconds = 0;  // of a new group, as measured; 0: not yet
  std::vector<GroupStatus> groups;
  std::optional<Rollback> rollback;
  std::optional<Backoff> backoff;
  std::vector<AvoidedNode> avoided_nodes;
  std::vector<Condition> conditions;
};

// Both directions keep every field. Fields that are absent or of the wrong type are read as their
// defaults: a status is ours, and what is missing is found out again.
nlohmann::json to_json(const ModelStatus& status);
ModelStatus parse_status(const nlohmann::json& status);

// nullptr when there is none of that type.
const Condition* find_condition(const ModelStatus& status, std::string_view type);

nlohmann::json to_json(const DeviceStatus& device);

// The same of one condition, for the status of every kind.
nlohmann::json to_json(const Condition& condition);
Condition parse_condition(const nlohmann::json& condition);

// Puts `next` in the place of the condition of its type; last_transition is kept when the truth is
// the same and becomes `now` otherwise.
void set_condition(std::vector<Condition>& conditions, Condition next, WallTime now);
void set_condition(ModelStatus& status, Condition next, WallTime now);

// Equal but for the fast numbers: queue_depth, tokens_per_second and loaded bytes.
bool same_but_numbers(const ModelStatus& a, const ModelStatus& b);
// Equal but for how far the groups are and the words for it: the truth of every condition, what is
// remembered (restarts, backoff) and what is wanted are the same.
bool same_but_progress(const ModelStatus& a, const ModelStatus& b);

// Every path of the JSON form ("groups[].name"), for the test that compares it with the CRD.
std::vector<std::string> status_field_paths();

}  // namespace dsm::api
