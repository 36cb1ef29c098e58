// The communicators of one process's ranks in one epoch.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rendezvous.h"

namespace dsm::group {

class EpochComms {
 public:
  virtual ~EpochComms() = default;
  // Connects local rank `local` (0 .. ranks of this process - 1) and returns its communicator,
  // which lives as long as this object. Called once on each rank's thread; waits for the other
  // ranks. Throws comm::CommError.
  virtual comm::Communicator& open(int local) = 0;
  // Any thread: ends open() and all operations with CommError.
  virtual void abort() noexcept = 0;
};

// All ranks are threads of this process.
std::shared_ptr<EpochComms> make_thread_epoch(int ranks);

struct GlooEpochOptions {
  int first_rank = 0;  // of this process
  int local_ranks = 1;
  int size = 2;  // of the group
  std::string host;
  Millis timeout{60000};
};
// Ranks of several processes, which meet through `rendezvous`.
std::shared_ptr<EpochComms> make_gloo_epoch(const GlooEpochOptions& options,
                                            std::shared_ptr<comm::Rendezvous> rendezvous);

}  // namespace dsm::group
