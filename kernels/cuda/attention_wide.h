// Attention of long prompts in the loose mode, on tensor cores that take one side from shared
// memory (wgmma): compute capability 9.0 alone. What the rows of a sequence and KV head attend to,
// a past, is packed once into tiles (attention_pack.cu), as they stand in shared memory, and then
// thread blocks of up to kPromptRows rows go through them (attention_wide.cu).
//
// A tile is some positions' keys and then their values, in BF16, as SharedRows (ptx.cuh): rows of
// 64 inputs, 128 bytes, of which chunk c of 16 bytes stands at place c ^ (row % 8). Of keys rows
// are positions and inputs dimensions: [keys / 64][positions][64]. Of values rows are columns and
// inputs positions: [positions / 64][values][64]. What a past does not have is zero.
//
// Functions of numbers, so that a test on the CPU can go through a tile.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/product_wide_fp8.h"
#include "kernels/cuda/wide_rows.h"

namespace dsm::kernels::cuda {

inline constexpr int kRowInputs = 64;
inline constexpr int kChunkInputs = 8;
inline constexpr int kSharedRowBytes = kRowInputs * 2;

// A tile has room for so many dimensions of keys, columns of values, and positions: of keys up to
// 192 dimensions 128 of them, which registers have room for.
struct WideTile {
  int keys = 0;
  int values = 0;
  int positions = 0;

  constexpr bool operator==(const WideTile&) const = default;
};
inline constexpr WideTile kWideTiles[] = {
    {64, 64, 128}, {128, 128, 128}, {192, 128, 128}, {256, 128, 64}};
// The smallest that takes a cache; none: values of 0.
constexpr WideTile wide_tile(const KvLayer& kv) {
  for (const WideTile& tile : kWideTiles) {
    if (kv.key_dim <= tile.keys && kv.value_dim <= tile.values) return tile;
  }
  return {};
}
DSM_HOST_DEVICE constexpr int key_bytes_of(const WideTile& tile) {
  return tile.keys * tile.positions * 2;
}
DSM_HOST_DEVICE constexpr int bytes_of(const WideTile& tile) {
  return (tile.keys + tile.values) * tile.positions * 2;
}
constexpr int tiles_of(const WideTile& tile, int positions) {
  return (positions + tile.positions - 1) / tile.positions;
}

// Where in a tile 16 bytes stand: of a position's key chunk number `chunk`, and of a column of
// values that of positions [8 chunk, 8 chunk + 8).
DSM_HOST_DEVICE constexpr int chunk_of_rows(int rows, int row, int chunk) {
  return (chunk / 8 * rows + row) * kSharedRowBytes + (chunk % 8 ^ row % 8) * 16;
}
DSM_HOST_DEVICE constexpr int key_chunk(const WideTile& tile, int position, int chunk) {
  return chunk_of_rows(tile.positions, position, chunk);
}
DSM_HOST_DEVICE constexpr int value_chunk(const WideTile& tile, int column, int chunk) {
  return key_bytes_of(tile) + chunk_of_rows(tile.values, column, chunk);
}
// The first of the two dimensions that word `word` of a key's chunk has: a step of 16 is in the
// order in which a lane's queries are four neighbours (fragments.h).
DSM_HOST_DEVICE constexpr int dimension_of(int chunk, int word) {
  return chunk / 2 * 16 + word * 4 + chunk % 2 * 2;
}

// What items of a sequence and KV head attend to.
struct WidePast {
  const std::int32_t* block_table = nullptr;
  std::int32_t kv_head = 0;
  std::int32_t positions = 0;
  std::int32_t first_tile = 0;
};
// `rows` without a block table.
struct WideItem {
  AttentionItem rows;
  std::int32_t first_tile = 0;  // of its past
};

struct WideAttention {
  AttentionParams params;  // of items nothing is read
  WideTile tile;
  const WidePast* pasts = nullptr;
  int past_count = 0;
  int most_tiles = 0;  // of a past
  const WideItem* items = nullptr;
  int item_count = 0;
  void* tiles = nullptr;  // aligned to 16 bytes
  // What goes here as the rows of the next product, a token's heads side by side, instead of to
  // out; values have a multiple of kWideInputs columns.
  WideRows to = {};
  WideFp8Rows to_fp8 = {};  // or here; values have kScaleBlock columns
};
void pack_pasts(const WideAttention& launch, Stream stream);
void wide_attention(const WideAttention& launch, Stream stream);

}  // namespace dsm::kernels::cuda
