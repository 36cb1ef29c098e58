// NCCL for tests, between threads of one process on the host's memory. Like a communicator that
// does not block it takes what it is asked for at once, and has done it when all ranks have asked:
// async_error() tells.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "worker/comm/nccl.h"

namespace dsm::comm {

// A communicator.
struct NcclState {
  std::string world;  // its id
  int rank = 0;
  std::size_t operations = 0;  // asked for; the first is to connect
  float* to = nullptr;         // of the last one
  bool adds = false;
};

class FakeNccl {
 public:
  static constexpr int kRemoteError = 6;

  // One at a time: NCCL's functions have no place for a `this`.
  FakeNccl() { current() = this; }
  FakeNccl(const FakeNccl&) = delete;
  FakeNccl& operator=(const FakeNccl&) = delete;
  ~FakeNccl() { current() = nullptr; }

  static const NcclApi& api() {
    static const NcclApi kTable{
        .get_version = [](int* version) { return *version = 23000, NcclApi::kSuccess; },
        .error_string = [](int) { return "remote error"; },
        .get_unique_id = [](NcclApi::Id* id) { return current()->make_id(*id); },
        .init_rank =
            [](NcclApi::Handle* comm, int size, NcclApi::Id id, int rank, NcclApi::Config* config) {
              return current()->init(comm, size, id, rank, *config);
            },
        .async_error = [](NcclApi::Handle comm,
                          int* result) { return current()->state(*comm, *result); },
        .abort = [](NcclApi::Handle comm) { return current()->abort(comm); },
        .all_gather = [](const void* send, void* recv, std::size_t count, int, NcclApi::Handle comm,
                         void*) { return current()->ask(*comm, send, recv, count, false); },
        .all_reduce = [](const void* send, void* recv, std::size_t count, int, int,
                         NcclApi::Handle comm,
                         void*) { return current()->ask(*comm, send, recv, count, true); }};
    return kTable;
  }

  std::atomic<int> ids{0};
  std::atomic<int> polls{0};  // notified
  std::atomic<int> aborts{0};
  std::atomic<int> living{0};          // communicators
  std::atomic<int> error_of_rank{-1};  // its communicators have an error
  std::atomic<bool> refuses_id{false};
  std::atomic<bool> blocking{false};  // one was asked to block

 private:
  // What each rank gave to each operation.
  struct World {
    int size = 0;
    std::vector<std::map<int, std::vector<float>>> operations;
  };

  static FakeNccl*& current() {
    static FakeNccl* fake = nullptr;
    return fake;
  }

  int make_id(NcclApi::Id& id) {
    if (refuses_id) return kRemoteError;
    const std::string text = "world " + std::to_string(++ids);
    std::copy(text.begin(), text.end(), id.bytes);
    return NcclApi::kSuccess;
  }

  int init(NcclApi::Handle* made, int size, const NcclApi::Id& id, int rank,
           const NcclApi::Config& config) {
    blocking = blocking || config.blocking != 0;
    ++living;
    *made = new NcclState{.world = std::string(id.bytes, sizeof(id.bytes)), .rank = rank};
    const std::lock_guard lock(mutex_);
    worlds_[(*made)->world].size = size;
    post(**made, {});
    return NcclApi::kInProgress;
  }

  int ask(NcclState& comm, const void* send, void* recv, std::size_t count, bool adds) {
    const auto* from = static_cast<const float*>(send);
    const std::lock_guard lock(mutex_);
    post(comm, {from, from + count});
    comm.to = static_cast<float*>(recv);
    comm.adds = adds;
    return NcclApi::kInProgress;
  }

  void post(NcclState& comm, std::vector<float> part) {
    World& world = worlds_[comm.world];
    if (world.operations.size() == comm.operations) world.operations.emplace_back();
    world.operations[comm.operations++][comm.rank] = std::move(part);
  }

  int state(NcclState& comm, int& result) {
    {
      const std::lock_guard lock(mutex_);
      const World& world = worlds_[comm.world];
      const auto& parts = world.operations[comm.operations - 1];
      if (error_of_rank == comm.rank) {
        result = kRemoteError;
      } else if (static_cast<int>(parts.size()) < world.size) {
        result = NcclApi::kInProgress;
      } else {
        finish(comm, parts);
        result = NcclApi::kSuccess;
      }
    }
    ++polls;
    polls.notify_all();
    return NcclApi::kSuccess;
  }

  static void finish(NcclState& comm, const std::map<int, std::vector<float>>& parts) {
    float* to = std::exchange(comm.to, nullptr);
    if (to == nullptr) return;
    const std::size_t count = parts.at(0).size();
    if (comm.adds) std::fill_n(to, count, 0.0F);
    for (const auto& [rank, part] : parts) {
      for (std::size_t i = 0; i < count; ++i) {
        if (comm.adds) {
          to[i] += part[i];
        } else {
          to[static_cast<std::size_t>(rank) * count + i] = part[i];
        }
      }
    }
  }

  int abort(NcclApi::Handle comm) {
    ++aborts;
    --living;
    delete comm;
    return NcclApi::kSuccess;
  }

  std::mutex mutex_;
  std::map<std::string, World> worlds_;
};

}  // namespace dsm::comm
