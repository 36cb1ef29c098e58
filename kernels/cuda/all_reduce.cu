// Four values make a packet, which one thread sends, waits for and adds. Threads wait for those of
// the same number alone, for what these send before they wait in their turn; so whichever blocks of
// each rank's grid run at a time, the lowest that has not ended on all ranks can go on.
//
// The next kernel is not started early: its blocks would take the room of other ranks' on a GPU
// that ranks share.
#include <algorithm>

#include "kernels/cuda/all_reduce.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tree.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;
// More do not send any faster over the links, and what else runs on the GPU has room.
constexpr std::int64_t kMostBlocks = 64;
constexpr int kPacket = 4;  // values
constexpr std::int64_t kPackets = kPeerPlaces / kPacket;

constexpr std::uint32_t kEmpty = 0xffffffffU;     // a place
constexpr std::uint32_t kOtherNan = 0x7fffffffU;  // is sent in its stead

// How often a thread looks for values before it asks how long it has done so: about 0.2 ms.
constexpr unsigned kLooks = 256;

__device__ std::uint32_t to_send(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  return bits == kEmpty ? kOtherNan : bits;
}
__device__ uint4 to_send(const float4& v) {
  return make_uint4(to_send(v.x), to_send(v.y), to_send(v.z), to_send(v.w));
}
__device__ float4 values_of(const uint4& packet) {
  return make_float4(__uint_as_float(packet.x), __uint_as_float(packet.y),
                     __uint_as_float(packet.z), __uint_as_float(packet.w));
}
__device__ bool is_full(const uint4& packet) {
  return packet.x != kEmpty && packet.y != kEmpty && packet.z != kEmpty && packet.w != kEmpty;
}

__device__ float4 load4(const float* values, std::int64_t packet) {
  return reinterpret_cast<const float4*>(values)[packet];
}
// y += sum
__device__ void add4(float* y, std::int64_t packet, const float4& sum) {
  float4& to = reinterpret_cast<float4*>(y)[packet];
  to = make_float4(to.x + sum.x, to.y + sum.y, to.z + sum.z, to.w + sum.w);
}

// What each rank has sent of a packet.
using Parts = float4[kSegments];

__device__ float4 sum_of(const Parts& parts, int ranks) {
  float x[kSegments];
  float y[kSegments];
  float z[kSegments];
  float w[kSegments];
#pragma unroll
  for (int r = 0; r < kSegments; ++r) {
    x[r] = parts[r].x;
    y[r] = parts[r].y;
    z[r] = parts[r].z;
    w[r] = parts[r].w;
  }
  return make_float4(tree_of(x, ranks), tree_of(y, ranks), tree_of(z, ranks), tree_of(w, ranks));
}

// A thread in a call. Packets stand at places of their own number.
class Call {
 public:
  // Whoever sees what is sent from here on knows that this rank has left the calls before.
  __device__ explicit Call(const AllReduceParams& p)
      : p_(p), half_((p.state->calls & 1U) * kPackets), lost_(load_system(&p.state->lost) != 0) {
    fence_system();
  }

  // To one other rank, or to all. What may be wrong is not sent.
  __device__ void send(int to, std::int64_t place, const uint4& packet) const {
    if (!lost_) store_system(places_of(p_.places[to]) + place, packet);
  }
  __device__ void send(std::int64_t place, const uint4& packet) const {
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      if (r < p_.ranks && r != p_.rank) send(r, place, packet);
    }
  }

  // The packets of the ranks at first, first + step, ..., which are taken out; this rank's own is
  // `mine`. From p.ranks on 0.
  __device__ void receive(std::int64_t first, std::int64_t step, const float4& mine, Parts& parts) {
    uint4* const places = places_of(p_.own) + first;
    uint4 packets[kSegments];
    bool full = false;
    do {
      full = true;
#pragma unroll
      for (int r = 0; r < kSegments; ++r) {
        packets[r] = make_uint4(0, 0, 0, 0);
        if (r < p_.ranks && r != p_.rank) packets[r] = load_system(places + r * step);
      }
#pragma unroll
      for (int r = 0; r < kSegments; ++r) full = full && is_full(packets[r]);
    } while (!full && goes_on());
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      parts[r] = r == p_.rank ? mine : values_of(packets[r]);
      if (r >= p_.ranks || r == p_.rank) continue;
      places[r * step] = make_uint4(kEmpty, kEmpty, kEmpty, kEmpty);
    }
  }

  // By all threads of all blocks.
  __device__ void end() const {
    __syncthreads();
    if (threadIdx.x != 0) return;
    fence_system();  // for all of the block: they have read `calls` before it is counted up
    if (atomicAdd(&p_.state->blocks, 1U) + 1 == gridDim.x) {
      __threadfence();
      p_.state->blocks = 0;
      ++p_.state->calls;
    }
  }

 private:
  __device__ uint4* places_of(float* places) const {
    return reinterpret_cast<uint4*>(places) + half_;
  }

  // False: it has been waited for long enough, or the host says so.
  __device__ bool goes_on() {
    let_others_run();
    if (lost_ || ++looks_ % kLooks != 0) return !lost_;
    const std::int64_t now = nanoseconds();
    if (began_ == 0) began_ = now;
    lost_ = now - began_ > p_.patience_ns || load_system(p_.lost) != 0;
    if (lost_) {
      store_system(&p_.state->lost, 1U);
      store_system(p_.lost, 1U);
    }
    return !lost_;
  }

  const AllReduceParams& p_;
  const std::int64_t half_;
  bool lost_;
  unsigned looks_ = 0;
  std::int64_t began_ = 0;  // to wait
};

__global__ void __launch_bounds__(kThreads) one_shot_kernel(const AllReduceParams p) {
  wait_for_previous_kernel();
  const std::int64_t packets = p.count / kPacket;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  Call call(p);
  for (std::int64_t i = begin; i < packets; i += step) {
    call.send(p.rank * packets + i, to_send(load4(p.mine, i)));
  }
  for (std::int64_t i = begin; i < packets; i += step) {
    Parts parts;
    call.receive(i, packets, load4(p.mine, i), parts);
    add4(p.y, i, sum_of(parts, p.ranks));
  }
  call.end();
}

// Rank r adds packets [r * share, (r + 1) * share), of which the last may be past the end: they are
// 0. At the first ranks * share places come what is to be added, at the next the sums.
__global__ void __launch_bounds__(kThreads)
    two_shot_kernel(const AllReduceParams p, const std::int64_t share) {
  wait_for_previous_kernel();
  const std::int64_t packets = p.count / kPacket;
  const std::int64_t sums = p.ranks * share;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  const auto mine = [&](std::int64_t packet) {
    return packet < packets ? load4(p.mine, packet) : make_float4(0, 0, 0, 0);
  };
  Call call(p);
  for (std::int64_t i = begin; i < share; i += step) {
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      if (r >= p.ranks || r == p.rank) continue;
      call.send(r, p.rank * share + i, to_send(mine(r * share + i)));
    }
  }
  for (std::int64_t i = begin; i < share; i += step) {
    const std::int64_t packet = p.rank * share + i;
    Parts parts;
    call.receive(i, share, mine(packet), parts);
    const float4 sum = sum_of(parts, p.ranks);
    call.send(sums + packet, to_send(sum));
    if (packet < packets) add4(p.y, packet, sum);
  }
  for (std::int64_t i = begin; i < share; i += step) {
    Parts parts;
    call.receive(sums + i, share, make_float4(0, 0, 0, 0), parts);
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      const std::int64_t packet = r * share + i;
      if (r < p.ranks && r != p.rank && packet < packets) add4(p.y, packet, parts[r]);
    }
  }
  call.end();
}

unsigned blocks_for(std::int64_t packets) {
  return static_cast<unsigned>(std::min((packets + kThreads - 1) / kThreads, kMostBlocks));
}

// Calls `kernel` with pieces of as many values as there are places for.
template <class Kernel>
void in_pieces(const AllReduceParams& p, std::int64_t most, const Kernel& kernel) {
  for (std::int64_t begin = 0; begin < p.count; begin += most) {
    AllReduceParams piece = p;
    piece.mine += begin;
    piece.y += begin;
    piece.count = std::min(p.count - begin, most);
    kernel(piece);
  }
}

}  // namespace

void load_all_reduce() {
  cudaFuncAttributes found = {};
  cudaFuncGetAttributes(&found, one_shot_kernel);
  cudaFuncGetAttributes(&found, two_shot_kernel);
}

void all_reduce_one_shot(const AllReduceParams& params, Stream stream) {
  in_pieces(params, kPackets / params.ranks * kPacket, [&](const AllReduceParams& p) {
    launch_early(one_shot_kernel, blocks_for(p.count / kPacket), kThreads, 0, stream, p);
  });
}

void all_reduce_two_shot(const AllReduceParams& params, Stream stream) {
  const std::int64_t most = kPackets / (2 * params.ranks) * params.ranks * kPacket;
  in_pieces(params, most, [&](const AllReduceParams& p) {
    const std::int64_t share = (p.count / kPacket + p.ranks - 1) / p.ranks;
    launch_early(two_shot_kernel, blocks_for(share), kThreads, 0, stream, p, share);
  });
}

}  // namespace dsm::kernels::cuda
