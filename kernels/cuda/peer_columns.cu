// Only rank 0 waits for values. The others, who would hear from nobody, tell each other that they
// are in the call, and rank 0 tells them: by one packet each, at the place of its sender's number,
// where rank 0 alone has values.
#include <algorithm>

#include "kernels/cuda/peer_call.cuh"
#include "kernels/cuda/peer_columns.h"

namespace dsm::kernels::cuda {
namespace {

// Values [begin, begin + count) of the rows; begin is that of a packet.
struct Piece {
  std::int64_t begin;
  std::int64_t count;
};

// The last packet may have fewer than four values.
__device__ float4 load_packet(const float* values, std::int64_t packet, std::int64_t count) {
  const std::int64_t at = packet * kPacket;
  if (at + kPacket <= count) return load4(values, packet);
  return make_float4(values[at], at + 1 < count ? values[at + 1] : 0,
                     at + 2 < count ? values[at + 2] : 0, 0);
}

// Where value i of rank 0's rows stands among all columns; those of the others follow `width` on.
__device__ float* place_of(const PeerColumnsParams& p, std::int64_t i) {
  const std::int64_t row = i / p.width;
  return p.y + row * p.peers.ranks * p.width + (i - row * p.width);
}

// Of all ranks, the values from `at` on, but not those from `end` on.
__device__ void store_packets(const PeerColumnsParams& p, std::int64_t at, std::int64_t end,
                              const Parts& parts) {
  if (p.width % kPacket == 0) {
    float* const to = place_of(p, at);
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      if (r < p.peers.ranks) *reinterpret_cast<float4*>(to + r * p.width) = parts[r];
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPacket; ++i) {
    if (at + i >= end) break;
    float* const to = place_of(p, at + i);
#pragma unroll
    for (int r = 0; r < kSegments; ++r) {
      const float4& v = parts[r];
      const float value = i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
      if (r < p.peers.ranks) to[r * p.width] = value;
    }
  }
}

__global__ void __launch_bounds__(kPeerThreads)
    columns_kernel(const PeerColumnsParams p, const Piece piece) {
  wait_for_previous_kernel();
  const int rank = p.peers.rank;
  const std::int64_t packets = (piece.count + kPacket - 1) / kPacket;
  const std::int64_t first = std::int64_t{blockIdx.x} * kPeerThreads + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * kPeerThreads;
  const float* mine = p.mine + piece.begin;
  PeerCall call(p.peers);
  if (first == 0) {
#pragma unroll
    for (int r = 1; r < kSegments; ++r) {
      if (r < p.peers.ranks && r != rank) call.send(r, rank, make_uint4(0, 0, 0, 0));
    }
  }
  if (rank != 0) {
    for (std::int64_t i = first; i < packets; i += step) {
      call.send(0, rank * packets + i, to_send(load_packet(mine, i, piece.count)));
    }
    if (first == 0) {
      Parts told;
      call.receive(0, 1, make_float4(0, 0, 0, 0), told);
    }
  } else {
    for (std::int64_t i = first; i < packets; i += step) {
      Parts parts;
      call.receive(i, packets, load_packet(mine, i, piece.count), parts);
      store_packets(p, piece.begin + i * kPacket, piece.begin + piece.count, parts);
    }
  }
  call.end();
}

}  // namespace

void load_peer_columns() {
  cudaFuncAttributes found = {};
  cudaFuncGetAttributes(&found, columns_kernel);
}

void peer_columns(const PeerColumnsParams& p, Stream stream) {
  const std::int64_t all = p.rows * p.width;
  const std::int64_t most = kPackets / p.peers.ranks * kPacket;
  for (std::int64_t begin = 0; begin < all; begin += most) {
    const Piece piece{begin, std::min(all - begin, most)};
    launch_early(columns_kernel, peer_blocks((piece.count + kPacket - 1) / kPacket), kPeerThreads,
                 0, stream, p, piece);
  }
}

}  // namespace dsm::kernels::cuda
