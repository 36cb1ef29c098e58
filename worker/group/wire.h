// What leader and followers say to each other over the control port, as values and as bytes. A
// frame is
//   u32 length of the rest | u8 version | u8 type | fields
// in little-endian order. decode() accepts any bytes: it checks every length against what is there
// before it makes room for it.
//
// A connection starts with
//   leader:   Challenge (a nonce)
//   follower: Hello (who it is, its own nonce, proof that it has the token)
//   leader:   Welcome (proof that it has the token too) or Refused (why)
// and then carries the rest in any order until it breaks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "worker/engine/batch.h"
#include "worker/group/adapters.h"
#include "worker/group/group.h"

namespace dsm::group {

inline constexpr std::uint8_t kWireVersion = 10;
inline constexpr std::size_t kMaxFrame = 16U << 20;
inline constexpr std::size_t kMaxGreeting = 4096;  // before the other side has proved itself

struct Challenge {
  std::string nonce;
  bool operator==(const Challenge&) const = default;
};
struct Hello {
  std::int32_t pod_index = 0;
  std::int32_t tensor_parallel = 0;
  std::int32_t ranks_per_pod = 0;
  std::uint64_t highest_epoch = 0;  // that this process has been in
  std::string revision;
  std::string model_digest;
  std::string nonce;
  std::string proof;  // hello_proof()
  bool operator==(const Hello&) const = default;
};
struct Welcome {
  std::string proof;  // welcome_proof()
  bool operator==(const Welcome&) const = default;
};
struct Refused {
  std::string message;
  bool operator==(const Refused&) const = default;
};
// follower: how its ranks are.
struct Progress {
  std::vector<RankState> ranks;
  bool operator==(const Progress&) const = default;
};
// leader: make communicators for this epoch; the KV cache is empty.
struct Start {
  std::uint64_t epoch = 0;
  std::int32_t kv_blocks = 0;  // that the ranks have agreed on; 0: the number was given
  bool operator==(const Start&) const = default;
};
// both: one entry of the epoch's rendezvous; the leader passes it on to the other followers.
struct StoreValue {
  std::uint64_t epoch = 0;
  std::string key;
  std::string value;
  bool operator==(const StoreValue&) const = default;
};
// follower: all of its ranks are connected.
struct Joined {
  std::uint64_t epoch = 0;
  bool operator==(const Joined&) const = default;
};
// leader: the next step.
struct RunBatch {
  std::uint64_t epoch = 0;
  engine::Batch batch;
  bool operator==(const RunBatch&) const = default;
};
// follower: a rank of it failed; the epoch is over.
struct Broken {
  std::uint64_t epoch = 0;
  ErrorKind kind = ErrorKind::kTransient;
  std::string message;
  bool operator==(const Broken&) const = default;
};
// leader: the epoch is over; give up what is under way and wait for the next.
struct Abort {
  std::uint64_t epoch = 0;
  bool operator==(const Abort&) const = default;
};
// leader: the group answers wrongly; no rank's weights are to be trusted any more.
struct Condemned {
  std::string message;
  bool operator==(const Condemned&) const = default;
};
// leader: the pod's ranks shall give their devices' memory back between epochs, or take it again.
// Said to whoever connects, and again when it changes.
struct Sleep {
  Rest rest = Rest::kAwake;
  bool operator==(const Sleep&) const = default;
};
// both, when there was nothing else to say.
struct Heartbeat {
  bool operator==(const Heartbeat&) const = default;
};

// leader: the adapters that the pod shall have, and no others.
struct WantAdapters {
  std::uint64_t version = 0;  // rises with every change, while the leader lives
  std::vector<SharedAdapter> adapters;
  bool operator==(const WantAdapters&) const = default;
};
// follower: it has those of this version, but for these.
struct HaveAdapters {
  std::uint64_t version = 0;
  std::vector<AdapterFailure> failures;
  bool operator==(const HaveAdapters&) const = default;
};

using Message =
    std::variant<Challenge, Hello, Welcome, Refused, Progress, Start, StoreValue, Joined, RunBatch,
                 Broken, Abort, Heartbeat, WantAdapters, HaveAdapters, Condemned, Sleep>;

// The whole frame, length included.
std::vector<std::byte> encode(const Message& message);
// One frame's bytes after the length. kInvalid for anything that encode() does not make.
Result<Message> decode(std::span<const std::byte> body);

// HMAC-SHA256 over the nonces and everything the Hello says, with the group's token as key.
std::string hello_proof(std::string_view token, std::string_view leader_nonce, const Hello& hello);
std::string welcome_proof(std::string_view token, std::string_view leader_nonce,
                          std::string_view follower_nonce);
// In time that does not depend on where they differ.
bool same_proof(std::string_view a, std::string_view b);

}  // namespace dsm::group
