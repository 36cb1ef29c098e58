// A libnccl.so.2 for the whole worker on emulated GPUs: what it asks of NCCL (worker/comm/nccl.h),
// between ranks that are threads of one process. It is loaded as NCCL is; streams and memory are
// those of the program that loads it.
//
// An operation is work on the rank's stream, which waits there for the other ranks'; ranks whose
// communicator has been aborted keep nobody waiting.
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/stream.h"

namespace {

using dsm::emulation::DeviceAccess;

constexpr int kSuccess = 0;
constexpr int kInvalidUsage = 5;
constexpr int kVersion = 22700;

struct Id {
  char bytes[128];
};

// Of one id.
struct World {
  std::mutex mutex;
  std::condition_variable changed;
  bool aborted = false;
  // What each rank gave to each operation.
  std::vector<std::map<int, std::vector<float>>> operations;
};

std::shared_ptr<World> world_of(const Id& id) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<World>> worlds;
  const std::lock_guard lock(mutex);
  auto& world = worlds[std::string(id.bytes, sizeof id.bytes)];
  if (world == nullptr) world = std::make_shared<World>();
  return world;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  int size = 0;
  std::size_t asked = 0;  // operations
};

namespace {

// All ranks' parts of an operation, by rank; empty once somebody has aborted.
std::map<int, std::vector<float>> exchange(World& world, int rank, int size, std::size_t operation,
                                           std::vector<float> part) {
  std::unique_lock lock(world.mutex);
  if (world.operations.size() <= operation) world.operations.resize(operation + 1);
  world.operations[operation][rank] = std::move(part);
  world.changed.notify_all();
  const auto all = [&] {
    return world.operations[operation].size() == static_cast<std::size_t>(size);
  };
  world.changed.wait(lock, [&] { return world.aborted || all(); });
  return all() ? world.operations[operation] : std::map<int, std::vector<float>>{};
}

template <class Finish>
int ask(ncclComm& comm, const void* send, std::size_t count, cudaStream_t stream, Finish finish) {
  const auto* from = static_cast<const float*>(send);
  dsm::emulation::enqueue(stream, [world = comm.world, rank = comm.rank, size = comm.size,
                                   operation = comm.asked++, from, count, finish] {
    std::vector<float> part(count);
    {
      const DeviceAccess access;
      std::memcpy(part.data(), from, count * sizeof(float));
    }
    const auto parts = exchange(*world, rank, size, operation, std::move(part));
    if (parts.empty()) return;
    const DeviceAccess access;
    finish(parts);
  });
  return kSuccess;
}

}  // namespace

extern "C" {

int ncclGetVersion(int* version) {
  *version = kVersion;
  return kSuccess;
}

const char* ncclGetErrorString(int) {
  return "invalid usage";
}

int ncclGetUniqueId(Id* id) {
  static std::mutex mutex;
  static int made = 0;
  const std::lock_guard lock(mutex);
  *id = {};
  std::memcpy(id->bytes, &++made, sizeof made);
  return kSuccess;
}

int ncclCommInitRankConfig(ncclComm** comm, int size, Id id, int rank, void*) {
  if (rank < 0 || rank >= size) return kInvalidUsage;
  *comm = new ncclComm{.world = world_of(id), .rank = rank, .size = size};
  return kSuccess;
}

int ncclCommGetAsyncError(ncclComm*, int* result) {
  return *result = kSuccess;
}

int ncclCommAbort(ncclComm* comm) {
  {
    const std::lock_guard lock(comm->world->mutex);
    comm->world->aborted = true;
  }
  comm->world->changed.notify_all();
  delete comm;
  return kSuccess;
}

int ncclAllGather(const void* send, void* recv, std::size_t count, int, ncclComm* comm,
                  cudaStream_t stream) {
  return ask(*comm, send, count, stream, [to = static_cast<float*>(recv)](const auto& parts) {
    float* at = to;
    for (const auto& [rank, part] : parts) {
      std::memcpy(at, part.data(), part.size() * sizeof(float));
      at += part.size();
    }
  });
}

int ncclAllReduce(const void* send, void* recv, std::size_t count, int, int, ncclComm* comm,
                  cudaStream_t stream) {
  return ask(*comm, send, count, stream,
             [to = static_cast<float*>(recv), count](const auto& parts) {
               for (std::size_t i = 0; i < count; ++i) {
                 float sum = 0;
                 for (const auto& [rank, part] : parts) sum += part[i];
                 to[i] = sum;
               }
             });
}
}
