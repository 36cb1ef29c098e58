// Leader election on a coordination.k8s.io/v1 Lease. The decision is pure (observe, decide); the
// election carries it out step by step, and the elector is the thread that takes the steps.
//
// Safety: the holder counts its lease from the moment it *sent* the renewal that succeeded,
// everyone else from the moment they *saw* it, each on its own steady clock. The second is never
// earlier than the first, so two processes never both believe to lead, however wrong their wall
// clocks are. The holder gives up after `renew_deadline`, well before others may take over after
// `duration`, and allows a write only when its time-out ends before `duration` does.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/log.h"
#include "kube/client.h"

namespace dsm::kube {

struct LeaseTimes {
  Millis duration{15'000};        // others take over after so long without a renewal
  Millis renew_deadline{10'000};  // the holder gives up after so long
  Millis retry{2'000};            // between renewals
  Millis look{700};               // between looks of those who wait
};

// Checks that look, retry < renew_deadline < duration and that duration is whole seconds.
Status check(const LeaseTimes& times);

// The fields of a Lease object that matter here.
struct LeaseRecord {
  std::string holder;  // "": free
  Millis duration{0};
  int transitions = 0;
  std::string acquire_time;
  std::string renew_time;
  std::string resource_version;
  std::string uid;
  bool operator==(const LeaseRecord&) const = default;
};
LeaseRecord lease_record(const Json& lease);

struct LeaseState {
  std::optional<LeaseRecord> seen;  // nothing: there is no Lease
  TimePoint seen_since{};           // when `seen` was first seen as it is
  bool leading = false;
  TimePoint renewed{};  // when the renewal that succeeded last was sent
};

// `record` is what the API server has now.
LeaseState observe(LeaseState state, std::optional<LeaseRecord> record, TimePoint now);

struct LeaseDecision {
  enum class Kind { kWait, kTake, kRenew, kGiveUp };
  Kind kind = Kind::kWait;
  TimePoint wake{};  // kWait: decide again then
};
LeaseDecision decide(const LeaseState& state, const LeaseTimes& times, const std::string& identity,
                     TimePoint now);

// The Lease object that `kind` (kTake or kRenew) writes.
Json lease_object(const LeaseState& state, LeaseDecision::Kind kind, const LeaseTimes& times,
                  const std::string& ns, const std::string& name, const std::string& identity,
                  WallTime now);

struct ElectorOptions {
  std::string ns;
  std::string name;
  std::string identity;  // different for every process: "<pod name>_<random>"
  LeaseTimes times;
  std::function<void(bool leading)> on_change;  // on the thread of the step
};

// Reads, takes, keeps and frees the Lease on the thread of whoever takes its steps; what it knows
// may be asked for by any thread.
class Election {
 public:
  // `client` (without a may_write of its own) must outlive the election.
  Election(Client& client, ElectorOptions options, Logger log);

  // What is due now, at most two requests. Returns when the next step is; the past: at once.
  TimePoint step();
  // When leading, frees the Lease so that another takes over at once. No step follows.
  void release();

  bool leading() const;
  // Whether nobody else can take over before `end`.
  bool holds_until(TimePoint end) const;

 private:
  bool look();  // false: the API server did not answer
  bool write(LeaseDecision::Kind kind);
  // Says a trouble once, not at each try.
  void trouble(const std::string& what, const std::string& error);
  void set(LeaseState state);
  LeaseState state() const;

  Client& client_;
  const ElectorOptions options_;
  const Logger log_;
  mutable std::mutex mutex_;
  LeaseState state_;  // guarded by mutex_; changed by steps alone
  std::string said_;  // the last trouble; of steps alone
};

class Elector {
 public:
  // `client` (without a may_write of its own) must outlive the elector. Starts at once.
  Elector(Client& client, ElectorOptions options, Logger log);
  ~Elector();  // release()
  Elector(const Elector&) = delete;
  Elector& operator=(const Elector&) = delete;

  bool leading() const { return election_.leading(); }
  // Whether nobody else can take over before `end`.
  bool holds_until(TimePoint end) const { return election_.holds_until(end); }
  // Stops and, when leading, frees the Lease so that another takes over at once. Call it after the
  // last write.
  void release();

 private:
  Clock& clock_;
  Election election_;
  std::jthread thread_;
};

}  // namespace dsm::kube
