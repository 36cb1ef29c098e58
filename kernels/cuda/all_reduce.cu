#include <algorithm>

#include "kernels/cuda/all_reduce.h"
#include "kernels/cuda/peer_call.cuh"
#include "kernels/cuda/tree.cuh"

namespace dsm::kernels::cuda {
namespace {

// y += sum
__device__ void add4(float* y, std::int64_t packet, const float4& sum) {
  float4& to = reinterpret_cast<float4*>(y)[packet];
  to = make_float4(to.x + sum.x, to.y + sum.y, to.z + sum.z, to.w + sum.w);
}

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

__global__ void __launch_bounds__(kPeerThreads) one_shot_kernel(const AllReduceParams p) {
  wait_for_previous_kernel();
  const std::int64_t packets = p.count / kPacket;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kPeerThreads + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * kPeerThreads;
  PeerCall call(p.peers);
  for (std::int64_t i = begin; i < packets; i += step) {
    call.send(p.peers.rank * packets + i, to_send(load4(p.mine, i)));
  }
  for (std::int64_t i = begin; i < packets; i += step) {
    Parts parts;
    call.receive(i, packets, load4(p.mine, i), parts);
    add4(p.y, i, sum_of(parts, p.peers.ranks));
  }
  call.end();
}

// Rank r adds packets [r * share, (r + 1) * share), of which the last may be past the end: they are
// 0. At the first ranks * share places come what is to be added, at the next the sums.
__global__ void __launch_bounds__(kPeerThreads)
    two_shot_kernel(const AllReduceParams p, const std::int64_t share) {
  wait_for_previous_kernel();
  const std::int64_t packets = p.count / kPacket;
  const std::int64_t sums = p.peers.ranks * share;
  const std::int64_t begin = std::int64_t{blockIdx.x} * kPeerThreads + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * kPeerThreads;
  const auto mine = [&](std::int64_t packet) {
    return packet < packets ? load4(p.mine, packet) : make_float4(0, 0, 0, 0);
  };
  PeerCall call(p.peers);
  for (std::int64_t i = begin; i < share; i += step) {
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      if (r >= p.peers.ranks || r == p.peers.rank) continue;
      call.send(r, p.peers.rank * share + i, to_send(mine(r * share + i)));
    }
  }
  for (std::int64_t i = begin; i < share; i += step) {
    const std::int64_t packet = p.peers.rank * share + i;
    Parts parts;
    call.receive(i, share, mine(packet), parts);
    const float4 sum = sum_of(parts, p.peers.ranks);
    call.send(sums + packet, to_send(sum));
    if (packet < packets) add4(p.y, packet, sum);
  }
  for (std::int64_t i = begin; i < share; i += step) {
    Parts parts;
    call.receive(sums + i, share, make_float4(0, 0, 0, 0), parts);
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      const std::int64_t packet = r * share + i;
      if (r < p.peers.ranks && r != p.peers.rank && packet < packets) add4(p.y, packet, parts[r]);
    }
  }
  call.end();
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
  in_pieces(params, kPackets / params.peers.ranks * kPacket, [&](const AllReduceParams& p) {
    launch_early(one_shot_kernel, peer_blocks(p.count / kPacket), kPeerThreads, 0, stream, p);
  });
}

void all_reduce_two_shot(const AllReduceParams& params, Stream stream) {
  const std::int64_t most = kPackets / (2 * params.peers.ranks) * params.peers.ranks * kPacket;
  in_pieces(params, most, [&](const AllReduceParams& p) {
    const std::int64_t share = (p.count / kPacket + p.peers.ranks - 1) / p.peers.ranks;
    launch_early(two_shot_kernel, peer_blocks(share), kPeerThreads, 0, stream, p, share);
  });
}

}  // namespace dsm::kernels::cuda
