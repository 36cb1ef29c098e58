// One operator of the simulation: the real election, caches, loop of the models and executor,
// driven step by step in virtual time. When it crashes another one starts in its place, which knows
// only what the API server holds. For tests; single-threaded.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "operator/faults/fault_source.h"
#include "operator/faults/wire.h"
#include "operator/runtime/model_loop.h"

namespace dsm::faults {

class Replica {
 public:
  // Looks in one moment; more are a loop that does not end.
  static constexpr int kMostLooks = 500;

  // As the program has them with rights in all namespaces: nodes are seen.
  static runtime::ModelLoopOptions loop_options();

  // All must outlive it.
  Replica(std::string name, ApiServer& server, ManualClock& clock, FaultSource& faults,
          Wire::Hooks hooks, runtime::ModelLoopOptions options);
  ~Replica();
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // Does what is due now. False: it looked more often than it should.
  bool tick();

  // What it says to an autoscaler that asks; kTransient: it does not know, or does not answer.
  Result<double> number(const std::string& model, const std::string& metric) const;

  // What may happen to it, each for so long:
  void cut_off(Millis time);      // nothing reaches the API server
  void stand_still(Millis time);  // the process is stopped
  void deafen(Millis time);       // no leader is heard
  void restart();                 // it ends in order, frees the Lease, and begins anew

  const std::string& name() const { return name_; }
  // Of this process; another one has another.
  const std::string& identity() const { return identity_; }

 private:
  struct Process;
  void start();
  void crash();
  void end_in_order();

  const std::string name_;
  ApiServer& server_;
  ManualClock& clock_;
  FaultSource& faults_;
  const Wire::Hooks hooks_;
  const runtime::ModelLoopOptions options_;
  std::unique_ptr<Process> process_;  // null: it has crashed, and starts anew
  std::string identity_;
  int started_ = 0;
  bool busy_ = false;    // a write of it is under way
  bool ending_ = false;  // after the look under way
  TimePoint starts_{};
  TimePoint cut_until_{};
  TimePoint still_until_{};
  TimePoint deaf_until_{};
  TimePoint asked_from_{};
};

}  // namespace dsm::faults
