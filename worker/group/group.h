// A group: the ranks that hold one copy of a model between them. Its pods are processes; pod i runs
// ranks [i * ranks_per_pod, (i + 1) * ranks_per_pod) as threads. Pod 0 is the leader (leader.h): it
// decides, and the others (follower.h) execute. This file is what both share: options and the state
// that health checks and the status stream show.
//
// Each rank loads its weights once. When all pods have met at the leader's control port with their
// weights loaded, the leader starts an epoch: fresh communicators, empty KV cache. When a rank is
// lost the survivors keep their weights and meet again at a higher epoch. A group that answers
// wrongly is condemned: which rank is to blame cannot be known, so all pods end and load anew.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "worker/health/device_health.h"

namespace dsm::group {

struct GroupOptions {
  int tensor_parallel = 1;  // ranks of the group
  int ranks_per_pod = 1;    // divides tensor_parallel
  int pod_index = 0;
  // Name or address of the leader's pod; followers connect to it.
  std::string leader_host;
  // The leader listens here. Port 0: any free one (LeaderGroup::control_port() says which).
  std::string bind_host = "0.0.0.0";
  std::uint16_t control_port = 8002;
  // Where the other pods reach this pod's ranks. Empty: this end's address of the control
  // connection.
  std::string advertise_host;
  // Shared secret of the group's pods; never sent, each side proves that it has it.
  std::string token;
  // Pods with different ones do not belong together: refused. The digest covers all that must be
  // the same on every rank (checkpoint, cache size, context, ...).
  std::string revision;
  std::string model_digest;

  Millis heartbeat{1000};          // sent this often on an idle control connection
  Millis heartbeat_timeout{6000};  // silence for so long is a lost pod
  Millis step_timeout{6500};       // a step in which no rank gets on for so long hangs
  // Time for an epoch's communicators to connect and its caches to be made; twice as long after
  // each epoch that has not come to be, up to sixteen times.
  Millis form_timeout{30000};
  Millis reconnect_min{100};  // back-off of a follower without a leader
  Millis reconnect_max{2000};

  int pods() const { return tensor_parallel / ranks_per_pod; }
  int first_rank() const { return pod_index * ranks_per_pod; }
};

// kInvalid with the flag's name and the numbers.
Status validate(const GroupOptions& options);

enum class Phase {
  kStarting,    // its pod has not been heard of yet
  kLoading,     // weights are being read
  kRendezvous,  // waits for other pods, or for communicators to connect
  kReady,       // executes steps; of a leader: those of its engine
  kAsleep,      // has given its device's memory back; of a leader: is told that all ranks shall
  kWaking,      // takes the memory again, and has some of it already
  kFailed,      // cannot load its weights, or has lost its device, or answers wrongly; stays so
};
// What the ranks of a group shall do between epochs.
enum class Rest { kAwake, kAsleep };

// "Starting", "Loading", ...: as in the status stream.
std::string_view to_string(Phase phase);

struct RankState {
  int rank = 0;
  Phase phase = Phase::kLoading;
  std::uint64_t loaded_bytes = 0;
  std::uint64_t total_bytes = 0;
  std::string error;
  std::string reason = {};  // of kFailed: LoadFailed or DeviceError
  int kv_room = 0;          // KV blocks that it has room for; 0: not known, or not asked
  health::DeviceHealth device = {};

  bool operator==(const RankState&) const = default;
};

// The smallest kv_room of those that have one; 0: none has.
int smallest_kv_room(const std::vector<RankState>& ranks);

// A snapshot. The leader's has all ranks of the group, a follower's its own.
struct GroupState {
  Phase phase = Phase::kLoading;
  // CamelCase: LoadingWeights, LoadFailed, DeviceError, ProbeFailed, WaitingForPods,
  // Connecting, Formed, FallingAsleep, Asleep, Waking
  std::string reason;
  std::string message;  // a sentence for people; names the pods that are waited for
  std::uint64_t epoch = 0;
  bool loaded = false;  // this process has its weights: /health/startup
  // False when a rank's thread hangs in a step that was given up long ago: only a restart helps.
  bool live = true;
  // This process can do no more: one of its own ranks has failed, or the group is condemned. Its
  // program ends, so that it begins anew.
  bool ended = false;
  // Of the leader: KV blocks that all ranks have agreed on; 0: not yet, or their number was given.
  int kv_blocks = 0;
  std::vector<RankState> ranks;
  std::string last_error;  // why the last epoch ended

  bool ready() const { return phase == Phase::kReady; }
};

// Asleep, or not awake again yet.
bool rests(const RankState& rank);

// Of a group whose ranks are all there with their weights, and asleep or told to be: its phase,
// reason and message.
void describe_rest(Rest rest, GroupState& state);

}  // namespace dsm::group
