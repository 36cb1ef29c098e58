// Keys and values of a prompt's past as operands of warpgroups' products (attention_wide.h), once
// for all of its rows. A thread block takes a block of the cache.
#include "kernels/cuda/attention_wide.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kv_cache.cuh"

namespace dsm::kernels::cuda {
namespace {

constexpr int kPackThreads = 256;
constexpr int kBlockChunks = kKvBlock / kChunkInputs;

// A warp takes 8 rows and 4 chunks of each at a time: it reads 8 neighbours in memory for each
// input, and writes 64 bytes of a row.
struct Place {
  int row;
  int chunk;
};
__device__ __forceinline__ Place place_of(int at, int rows) {
  const int lane = at % 32;
  const int warp = at / 32;
  return {warp % (rows / 8) * 8 + lane % 8, warp / (rows / 8) * 4 + lane / 8};
}

template <DType kType>
__device__ __forceinline__ void pack_keys(const WideAttention& launch, const KeyBlock<kType>& keys,
                                          int seen, int first_row, unsigned char* to) {
  const int dims = launch.params.kv.key_dim;
#pragma unroll 2
  for (int at = static_cast<int>(threadIdx.x); at < kKvBlock * launch.tile.keys / kChunkInputs;
       at += kPackThreads) {
    const auto [slot, chunk] = place_of(at, kKvBlock);
    std::uint32_t words[4] = {};
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const int first = dimension_of(chunk, word);
      // Dimensions are even.
      if (slot < seen && first < dims) {
        words[word] = bf16_pair(keys.at(first, slot), keys.at(first + 1, slot));
      }
    }
    *reinterpret_cast<uint4*>(to + key_chunk(launch.tile, first_row + slot, chunk)) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <DType kType>
__device__ __forceinline__ void pack_values(const WideAttention& launch,
                                            const ValueBlock<kType>& values, int seen,
                                            int first_row, unsigned char* to) {
  const int width = launch.params.kv.value_dim;
#pragma unroll 2
  for (int at = static_cast<int>(threadIdx.x); at < launch.tile.values * kBlockChunks;
       at += kPackThreads) {
    const auto [column, chunk] = place_of(at, launch.tile.values);
    std::uint32_t words[4] = {};
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const int slot = chunk * kChunkInputs + word * 2;
      if (column < width && slot < seen) {
        const float second = slot + 1 < seen ? values.at(slot + 1, column) : 0.0F;
        words[word] = bf16_pair(values.at(slot, column), second);
      }
    }
    *reinterpret_cast<uint4*>(to +
                              value_chunk(launch.tile, column, first_row / kChunkInputs + chunk)) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <DType kType>
__global__ void __launch_bounds__(kPackThreads) pack_kernel(const WideAttention launch) {
  follow_previous_kernel();
  const WidePast past = launch.pasts[blockIdx.y];
  const KvLayer& kv = launch.params.kv;
  const int begin = static_cast<int>(blockIdx.x) * kKvBlock;
  const int tile = begin / launch.tile.positions;
  if (tile * launch.tile.positions >= past.positions) return;  // the whole thread block does
  const int seen = past.positions - begin;
  // Past the last position there may be no block: nothing of it is read.
  const std::int64_t block =
      seen > 0 ? std::int64_t{past.block_table[blockIdx.x]} * kv.heads + past.kv_head : 0;
  unsigned char* to = static_cast<unsigned char*>(launch.tiles) +
                      std::int64_t{past.first_tile + tile} * bytes_of(launch.tile);
  const int first_row = begin % launch.tile.positions;
  pack_keys(launch, KeyBlock<kType>(kv, block), seen, first_row, to);
  pack_values(launch, ValueBlock<kType>(kv, block), seen, first_row, to);
}

}  // namespace

void pack_pasts(const WideAttention& launch, Stream stream) {
  const dim3 grid(static_cast<unsigned>(launch.most_tiles * (launch.tile.positions / kKvBlock)),
                  static_cast<unsigned>(launch.past_count));
  switch (launch.params.kv.dtype) {
    case DType::kF32:
      return launch_early(pack_kernel<DType::kF32>, grid, kPackThreads, 0, stream, launch);
    case DType::kBF16:
      return launch_early(pack_kernel<DType::kBF16>, grid, kPackThreads, 0, stream, launch);
    default:
      return launch_early(pack_kernel<DType::kF8E4M3>, grid, kPackThreads, 0, stream, launch);
  }
}

}  // namespace dsm::kernels::cuda
