// What kernels of ranks that write into each other's memory do with places (peers.h).
//
// Four values make a packet, which one thread sends, waits for and takes. Threads wait for those of
// the same number alone, for what these send before they wait in their turn; so whichever blocks of
// each rank's grid run at a time, the lowest that has not ended on all ranks can go on.
//
// The next kernel is not started early: its blocks would take the room of other ranks' on a GPU
// that ranks share.
#pragma once

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/peers.h"

namespace dsm::kernels::cuda {

inline constexpr int kPeerThreads = 256;
inline constexpr int kPacket = 4;  // values
inline constexpr std::int64_t kPackets = kPeerPlaces / kPacket;

// Of a call with so many packets a thread.
inline unsigned peer_blocks(std::int64_t packets) {
  // More do not send any faster over the links, and what else runs on the GPU has room.
  constexpr std::int64_t kMostBlocks = 64;
  return static_cast<unsigned>(std::min((packets + kPeerThreads - 1) / kPeerThreads, kMostBlocks));
}

inline constexpr std::uint32_t kEmpty = 0xffffffffU;     // a place
inline constexpr std::uint32_t kOtherNan = 0x7fffffffU;  // is sent in its stead

__device__ __forceinline__ std::uint32_t to_send(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  return bits == kEmpty ? kOtherNan : bits;
}
__device__ __forceinline__ uint4 to_send(const float4& v) {
  return make_uint4(to_send(v.x), to_send(v.y), to_send(v.z), to_send(v.w));
}
__device__ __forceinline__ float4 values_of(const uint4& packet) {
  return make_float4(__uint_as_float(packet.x), __uint_as_float(packet.y),
                     __uint_as_float(packet.z), __uint_as_float(packet.w));
}
__device__ __forceinline__ bool is_full(const uint4& packet) {
  return packet.x != kEmpty && packet.y != kEmpty && packet.z != kEmpty && packet.w != kEmpty;
}

__device__ __forceinline__ float4 load4(const float* values, std::int64_t packet) {
  return reinterpret_cast<const float4*>(values)[packet];
}

// What each rank has sent of a packet.
using Parts = float4[kSegments];

// A thread in a call. Packets stand at places of their own number.
class PeerCall {
 public:
  // Whoever sees what is sent from here on knows that this rank has left the calls before.
  __device__ explicit PeerCall(const PeerParams& p)
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
    // How often a thread looks for values before it asks how long it has done so: about 0.2 ms.
    constexpr unsigned kLooks = 256;
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

  const PeerParams& p_;
  const std::int64_t half_;
  bool lost_;
  unsigned looks_ = 0;
  std::int64_t began_ = 0;  // to wait
};

}  // namespace dsm::kernels::cuda
