// The ranks of one epoch on their GPUs, by NCCL. The host's communicator of the same ranks, which
// met through the leader, carries NCCL's id; after that NCCL goes its own ways.
//
// Nothing here blocks in NCCL: what it works on is polled, and given up when NCCL has an error, the
// host's communicator is aborted or the time is over. Then the communicator is aborted by the
// thread that found out, which ends its kernels, and CommError is thrown. One thread, its rank's,
// uses an NcclComm, with its GPU current.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <stop_token>
#include <string>

#include "base/clock.h"
#include "worker/comm/communicator.h"
#include "worker/comm/nccl.h"

namespace dsm::comm {

// How long who has waited for so long lets pass before looking again. Steps of decoding and what
// NCCL does at once are looked for all the time; longer waits end late by a hundredth, and leave
// the core to others.
constexpr std::chrono::nanoseconds pause_after(std::chrono::nanoseconds waited) {
  constexpr std::chrono::milliseconds kBusy(10);
  constexpr std::chrono::nanoseconds kLongest = std::chrono::milliseconds(1);
  return waited < kBusy ? std::chrono::nanoseconds(0) : std::min(waited / 100, kLongest);
}

class NcclComm {
 public:
  // Collective. `timeout`: for each operation, connecting included. `api` and `clock` outlive it.
  NcclComm(const NcclApi& api, Communicator& ranks, const Clock& clock, Millis timeout);
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;
  // Waits for nobody: others may be lost.
  ~NcclComm();

  // On the GPU's memory and in the order of the stream: parts[r * count ..) = rank r's `mine`.
  void all_gather(const float* mine, float* parts, std::size_t count, void* stream);
  // sum = all ranks' `mine`, added in NCCL's order; the same bits on all ranks. May be `mine`.
  void all_reduce(const float* mine, float* sum, std::size_t count, void* stream);

  // Returns when done() says so, which the stream's owner knows. Does not look after the ranks any
  // more once they are lost: what was on the stream ends by itself.
  void wait(const std::function<bool()>& done, const char* what);

 private:
  void check(int result, const char* what);
  // NCCL has taken what it was asked for.
  void wait_for_nccl(const char* what);
  [[noreturn]] void give_up(const std::string& why);
  void abort() noexcept;

  const NcclApi& api_;
  const Clock& clock_;
  const Millis timeout_;
  const std::stop_token aborted_;  // the host's communicator
  NcclApi::Handle comm_ = nullptr;
};

}  // namespace dsm::comm
