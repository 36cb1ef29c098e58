// A libnccl.so.2 for the whole worker on emulated GPUs: what it asks of NCCL (worker/comm/nccl.h),
// loaded as NCCL is. Streams and memory are those of the program that loads it.
//
// An operation is work on the rank's stream: it gives its part, and what follows is ready when the
// others' are there. After an abort nobody waits, and results are left as they are.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/nccl/world.h"
#include "kernels/cuda/emulation/stream.h"

namespace {

using dsm::emulation::DeviceAccess;
using dsm::emulation::World;

constexpr int kSuccess = 0;
constexpr int kSystemError = 2;
constexpr int kInvalidUsage = 5;
constexpr int kVersion = 22700;

struct Id {
  char name[128];
};

}  // namespace

struct ncclComm {
  std::shared_ptr<World> world;
  int rank = 0;
  int size = 0;
  std::uint64_t asked = 0;  // operations
};

namespace {

// `finish` gets each rank's part, in their order.
template <class Finish>
int ask(ncclComm& comm, const void* send, std::size_t count, cudaStream_t stream, Finish finish) {
  if (count > World::kMostValues) return kInvalidUsage;
  const auto world = comm.world;
  const auto operation = comm.asked++;
  dsm::emulation::enqueue(stream, [=, rank = comm.rank, from = static_cast<const float*>(send)] {
    const DeviceAccess access;
    world->give(rank, operation, {from, count});
  });
  dsm::emulation::enqueue_when(
      stream, [=] { return world->ready(operation); },
      [=, size = comm.size] {
        if (!world->all_there(operation)) return;
        const DeviceAccess access;
        for (int rank = 0; rank < size; ++rank) finish(rank, world->part(rank, operation, count));
      });
  return kSuccess;
}

}  // namespace

extern "C" {

int ncclGetVersion(int* version) {
  *version = kVersion;
  return kSuccess;
}

const char* ncclGetErrorString(int error) {
  return error == kInvalidUsage ? "invalid usage" : "unhandled system error";
}

int ncclGetUniqueId(Id* id) {
  *id = {};
  const auto name = World::make();
  name.copy(id->name, sizeof id->name - 1);
  return name.empty() ? kSystemError : kSuccess;
}

int ncclCommInitRankConfig(ncclComm** comm, int size, Id id, int rank, void*) {
  if (size > World::kMostRanks || rank < 0 || rank >= size) return kInvalidUsage;
  auto world = World::open(id.name, size);
  if (world == nullptr) return kSystemError;
  *comm = new ncclComm{.world = std::move(world), .rank = rank, .size = size};
  return kSuccess;
}

int ncclCommGetAsyncError(ncclComm*, int* result) {
  return *result = kSuccess;
}

int ncclCommAbort(ncclComm* comm) {
  comm->world->abort();
  delete comm;
  return kSuccess;
}

int ncclAllGather(const void* send, void* recv, std::size_t count, int, ncclComm* comm,
                  cudaStream_t stream) {
  return ask(*comm, send, count, stream,
             [to = static_cast<float*>(recv)](int rank, std::span<const float> part) {
               std::ranges::copy(part, to + static_cast<std::size_t>(rank) * part.size());
             });
}

int ncclAllReduce(const void* send, void* recv, std::size_t count, int, int, ncclComm* comm,
                  cudaStream_t stream) {
  return ask(*comm, send, count, stream,
             [to = static_cast<float*>(recv)](int rank, std::span<const float> part) {
               for (std::size_t i = 0; i < part.size(); ++i) {
                 to[i] = rank == 0 ? part[i] : to[i] + part[i];
               }
             });
}
}
