// The operators on a GPU: functions that put a kernel on a stream and return. All pointers in
// parameters are the device's, also those of lists (places, items, groups, descriptions of
// weights). What params.h says of shapes holds, and of order of sums what the kernels' files say.
// An error of a launch is CUDA's last error.
//
// No CUDA header is needed to include this.
#pragma once

#include "kernels/params.h"

struct CUstream_st;

namespace dsm::kernels::cuda {

using Stream = CUstream_st*;

void embedding(const EmbeddingParams& params, Stream stream);
void rms_norm(const RmsNormParams& params, Stream stream);
void quantise(const QuantiseParams& params, Stream stream);
void tree_sum(const TreeSumParams& params, Stream stream);
void norm_heads(const NormHeadsParams& params, Stream stream);
void kv_write(const KvWriteParams& params, Stream stream);
void kv_write_heads(const KvWriteHeadsParams& params, Stream stream);
void latent_read(const LatentReadParams& params, Stream stream);
void heads_expand(const HeadsExpandParams& params, Stream stream);
void rope_query(const RopeQueryParams& params, Stream stream);
void router(const RouterParams& params, Stream stream);
void index_write(const IndexWriteParams& params, Stream stream);
// Scores and selection; no token sees more than most_positions.
void index_select(const IndexSelectParams& params, int most_positions, Stream stream);

// Rows of one matrix in a product.
struct ProductTask {
  PackedMatrix w = {};
  const float* x = nullptr;  // row r at x + r * ldx, or with a token list at x + token[...] * ldx
  float* y = nullptr;        // row r at y + r * ldy
  int first_row = 0;         // number of its row 0 among the rows of the launch
  int rows = 0;
  Fp8Rows x_fp8 = {};            // x
  const float* start = nullptr;  // swiglu: added to the sums; row r at start + r * lds; null: none
};
// A part of a task for one thread block: up to tile_rows rows from `row` on; none from the task's
// last on.
struct ProductTile {
  std::int32_t task = 0;
  std::int32_t row = 0;
};
inline constexpr std::int32_t kNoRow = 0x7fffffff;

// Of weights.
inline constexpr DType kProductTypes[] = {DType::kBF16, DType::kF8E4M3, DType::kInt8, DType::kInt4,
                                          DType::kF32};
constexpr int max_tile_rows(DType dtype) {
  return dtype == DType::kF32 ? 32 : 64;
}

// Products of many matrices of one type, and what is done with the sums.
struct Products {
  const ProductTask* tasks = nullptr;
  const ProductTile* tiles = nullptr;
  int tile_count = 0;
  int tile_rows = 0;                    // 16, 32 or 64, at most max_tile_rows()
  int panels = 0;                       // of the widest matrix
  int spans = 0;                        // of the longest
  const std::int32_t* token = nullptr;  // [rows of the launch]; null: a task's own rows
  std::int64_t ldx = 0;
  std::int64_t ldy = 0;
  bool wide_x = false;  // four values of a row can be loaded at a time from any multiple of four
  bool exact = false;   // activations as two BF16 terms, else as one
  // Both sides of the product in FP8 (GPUs from 9.0 on): weights are, with scale_phase 0, and every
  // task has x_fp8.
  bool fp8_rows = false;

  // Where rows_are_packed(): the rows of each tile as operands of the tensor cores, which
  // pack_rows() makes. [tiles][splits of all spans][8 steps][tile_rows / 16][terms][lane] of 16
  // bytes.
  void* x_operands = nullptr;

  // y = sums (+ y) (+ bias), or residual + sums ...
  bool accumulate = false;
  const float* bias = nullptr;      // [n]
  const float* residual = nullptr;  // [rows, n], ldy; of the one task; may be its y
  // ... or, of panels with 32 columns of a gate and 32 of an up product, silu(gate) up weight.
  bool swiglu = false;
  std::int64_t lds = 0;
  const float* weight = nullptr;  // [rows of the launch]

  // The host has made tasks and tiles: they and the weights may be read before the kernel ahead has
  // ended.
  bool early = false;

  int spans_each = 0;  // of a thread block
  // Where spans meet, if a thread block does not go through all of them: [spans, rows of the
  // launch, ld_partial].
  float* partial = nullptr;
  std::uint32_t* met = nullptr;  // [tile_count, panels], zero before and after
  std::int64_t rows = 0;
  std::int64_t ld_partial = 0;  // panels * 64
};
void products(const Products& params, DType dtype, Stream stream);
// Tiles of more rows than 16 are read by each panel's thread block: then it pays to make operands
// of them once.
constexpr bool rows_are_packed(const Products& p, DType dtype) {
  return p.tile_rows > 16 && dtype != DType::kF32 && !p.fp8_rows;
}
constexpr std::int64_t operand_bytes_of_tile(const Products& p) {
  constexpr std::int64_t kBytes = 8 * 8 * 32 * 16;  // of a span of 16 rows
  return kBytes * p.spans * (p.tile_rows / 16) * (p.exact ? 2 : 1);
}
void pack_rows(const Products& params, DType dtype, Stream stream);
// Adds the first params.spans spans of `partial` and does with the sums what params say.
void finish_products(const Products& params, Stream stream);

// The two sides of a product as a library wants them: in BF16, row by row of `ld` inputs, which are
// zero from k on. ld is a multiple of kUnpackInputs.
inline constexpr int kUnpackInputs = 64;
// `to`: [panels * 64, ld], the columns of w. BF16, or FP8 with its scales, which is rounded.
void unpack_bf16(const PackedMatrix& w, std::uint16_t* to, std::int64_t ld, Stream stream);
// `to`: [rows of the task, ld]. Of params ldx and token are read.
void gather_bf16(const Products& params, const ProductTask& task, std::uint16_t* to,
                 std::int64_t ld, Stream stream);

// y[t] = residual[t] + the sum, in their order, of the rows slots[first[t]] .. slots[first[t + 1] -
// 1] of x.
struct CombineParams {
  const float* x = nullptr;             // [slots, n]
  const std::int32_t* first = nullptr;  // [tokens + 1]; null: `each` for every token, of which
                                        // negative ones are none
  int each = 0;
  const std::int32_t* slots = nullptr;
  const float* residual = nullptr;  // [tokens, n], ldy; null: none; may be y
  float* y = nullptr;               // [tokens, n], ldy
  std::int64_t ldy = 0;
  int tokens = 0;
  int n = 0;
};
void combine(const CombineParams& params, Stream stream);
// A thread has so many neighbours of a token where all rows allow it, else one.
inline constexpr int kCombineThreads = 256;
inline constexpr int kCombineColumns = 4;
inline bool combines_in_fours(const CombineParams& p) {
  const auto aligned = [](const float* values) {
    return reinterpret_cast<std::uintptr_t>(values) % (kCombineColumns * sizeof(float)) == 0;
  };
  return p.n % kCombineColumns == 0 && p.ldy % kCombineColumns == 0 && aligned(p.x) &&
         aligned(p.y) && aligned(p.residual);
}

// Attention in two steps: each split of each item (a block of the cache, splits.h) gives its
// maximum, its sum and its part of the output; then the splits are merged in order.
struct AttentionLaunch {
  AttentionParams params;  // the items' block tables are the device's
  int first_item = 0;      // items [first_item, first_item + items)
  int items = 0;
  int item_rows = 0;         // of the largest of them, at most kAttentionRows
  bool exact = false;        // queries and exponentials as two BF16 terms, else as one
  int splits = 0;            // of the longest past among them
  float* partial = nullptr;  // [items, item_rows, splits, value_dim]
  float* best = nullptr;     // [items, item_rows, splits]
  float* total = nullptr;    // [items, item_rows, splits]
};
void attention(const AttentionLaunch& launch, Stream stream);
void attention_splits(const AttentionLaunch& launch, Stream stream);  // the first step alone
// The same bits in one step, by a thread block for each item, which goes through the splits: for
// many rows over the same past. Items have up to kPromptRows rows and no selection; values have up
// to kMaxPromptValueDim columns. Nothing of `splits` and the sums is read.
void attention_of_prompts(const AttentionLaunch& launch, Stream stream);
// The widest keys that fit into a thread block's shared memory, on every GPU.
inline constexpr int kMaxKeyDim = 720;

}  // namespace dsm::kernels::cuda
