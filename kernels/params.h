// Parameters of the operators: plain structs with the shape of every pointer. All matrices are
// row-major, all activations FP32; `ld*` is the distance between rows in elements. No ownership, no
// threading concerns.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsm::kernels {

// kF8E4M3: sign, 4 bits of exponent, 3 of fraction; no infinities. kF16 and kF8E8M0 (a power of
// two, for scales) stand in checkpoints only, kInt8 and kInt4 in words of packed matrices or those.
enum class DType : std::uint8_t { kF32, kF16, kBF16, kF8E4M3, kF8E8M0, kInt8, kInt4 };

constexpr bool is_integer(DType type) {
  return type == DType::kInt8 || type == DType::kInt4;
}
// Of a value in a checkpoint or a table; not for integers, which stand in words.
constexpr std::size_t bytes_of(DType type) {
  if (type == DType::kF32) return 4;
  return type == DType::kF8E4M3 || type == DType::kF8E8M0 ? 1 : 2;
}
constexpr std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Output columns that one panel of a packed matrix feeds.
inline constexpr int kPanel = 64;
// Rows (tokens) that one work item handles against a panel.
inline constexpr int kRowBlock = 64;
// Positions per KV block; a block is also one fixed split of the attention's sum.
inline constexpr int kKvBlock = 64;
// Row-parallel sums are cut into this many fixed segments of K, whatever the number of ranks.
inline constexpr int kSegments = 8;

// A weight [n, k] packed for reading lanes over n: panel p holds columns n of p * 64 .. + 63.
//   BF16: [panels][ceil(k / 2)][64][2]  (two consecutive k of a column side by side; odd k is
//   padded with zero) F32:  [panels][k][64]
//   FP8:  [panels][k][64], and scales [panels][blocks][64]: a weight is its FP8 value times the
//   scale of its column for block (scale_phase + k) / 128, rounded to FP32.
//   INT8, INT4: [panels][words][64] words of 32 bits, each with 4 or 8 consecutive k of a column
//   (place_in_word), and scales as of FP8: a weight is its number times its scale, rounded to FP32.
//   INT8 is in two's complement, INT4 the number plus 8. Words begin where blocks of scales do, so
//   the first one has scale_phase % 4 or 8 places that mean nothing, and the last one some more.
// Columns past n are zero.
struct PackedMatrix {
  const void* data = nullptr;
  DType dtype = DType::kF32;  // kF32, kBF16, kF8E4M3, kInt8 or kInt4
  int n = 0;
  int k = 0;
  // FP8: each times 2^120 (Kernels' load_e4m3 gives 2^-120). Integers: as they are.
  const float* scales = nullptr;
  int scale_phase = 0;      // with scales: inputs of the first block that are not of this matrix
  bool stored_fp8 = false;  // in the checkpoint, whatever dtype is; not of integers
};

// Inputs that have one scale.
inline constexpr int kScaleBlock = 128;
constexpr int scale_blocks(const PackedMatrix& w) {
  return (w.scale_phase + w.k + kScaleBlock - 1) / kScaleBlock;
}

constexpr bool has_scales(const PackedMatrix& w) {
  return w.dtype == DType::kF8E4M3 || is_integer(w.dtype);
}

// Of integers: inputs of a column that a word holds.
constexpr int inputs_per_word(DType type) {
  return type == DType::kInt4 ? 8 : 4;
}
// Where in its word a column's input number i of it stands, in units of 8 or 4 bits from the lowest
// on: the even ones in the lower half, the odd ones in the upper, so that a mask gives a GPU two
// neighbours in the halves of a register.
constexpr int place_in_word(DType type, int i) {
  return i / 2 + i % 2 * (inputs_per_word(type) / 2);
}
// Places of the first word before input 0.
constexpr int lead_of(const PackedMatrix& w) {
  return w.scale_phase % inputs_per_word(w.dtype);
}
constexpr int words_of(const PackedMatrix& w) {
  return (lead_of(w) + w.k + inputs_per_word(w.dtype) - 1) / inputs_per_word(w.dtype);
}

// Bytes of a column without its scales.
constexpr std::int64_t column_bytes(const PackedMatrix& w) {
  if (is_integer(w.dtype)) return std::int64_t{words_of(w)} * 4;
  const std::int64_t inputs = w.dtype == DType::kBF16 ? round_up(w.k, 2) : w.k;
  return inputs * static_cast<std::int64_t>(bytes_of(w.dtype));
}

constexpr int panels_of(const PackedMatrix& w) {
  return (w.n + kPanel - 1) / kPanel;
}

// Columns begin .. begin + n of it, of which the first begins a panel and the last ends one.
constexpr PackedMatrix columns_of(const PackedMatrix& w, int begin, int n) {
  PackedMatrix some = w;
  some.n = n;
  some.data = static_cast<const std::byte*>(w.data) + begin * column_bytes(w);
  if (w.scales != nullptr) some.scales = w.scales + begin * std::int64_t{scale_blocks(w)};
  return some;
}

// A weight whose K is cut into segments; each is packed alone. Segment i multiplies x[offset[i] ..
// + part[i].k).
struct SegmentedMatrix {
  PackedMatrix part[kSegments];
  int offset[kSegments] = {};
  int count = 0;  // this rank's segments: a power of two
};

// Rows of a table; a negative token has a row of zeros. In integers the table is a packed matrix of
// `width` inputs and no scale_phase, of which a column is a row here: its numbers times their
// scales, as products have them.
struct EmbeddingParams {
  const std::int32_t* tokens = nullptr;  // [rows]
  const void* table = nullptr;           // [vocab, width] in BF16 or F32, or integers
  DType dtype = DType::kBF16;
  float* y = nullptr;  // [rows, width]
  int rows = 0;
  int width = 0;
  const float* scales = nullptr;  // of integers: the packed matrix's
};

// What products take of rows that an operator makes: the rows, or what quantise makes of them.
enum class RowsTaken : std::uint8_t { kAsTheyAre, kRounded, kRoundedByPowersOfTwo };

// y = x / sqrt(mean(x^2) + eps) * weight. width is a multiple of 16.
struct RmsNormParams {
  const float* x = nullptr;  // [rows, width], ldx
  std::int64_t ldx = 0;
  const std::int32_t* row_index = nullptr;  // [rows] rows of x to take; null: 0, 1, 2, ...
  const float* weight = nullptr;            // [width]
  float* y = nullptr;                       // [rows, width], ldy
  std::int64_t ldy = 0;
  int rows = 0;
  int width = 0;
  float eps = 0;
  // The next so many products are all that reads y: a backend may keep it in a form of theirs
  // instead. They are by weights in BF16 or, with scale_phase a multiple of 64, integers, or, of
  // what quantise makes of y before each of them or before the first, by weights in FP8 whose
  // blocks of inputs are those of y.
  int for_products = 0;
  RowsTaken taken = RowsTaken::kAsTheyAre;
};

// Rows in FP8, beside the same rows in FP32: input i of row r is values[r * ld + i] times
// scales[r * ld / 128 + i / 128]. quantise writes them and products read them where a backend
// multiplies FP8 by FP8; others take the FP32 and leave these alone.
struct Fp8Rows {
  std::uint8_t* values =
      nullptr;  // E4M3; zeros from the width of a row up to a multiple of 128; null: there are none
  float* scales = nullptr;
  std::int64_t ld = 0;  // multiple of 128

  constexpr Fp8Rows from(std::int64_t row) const {
    if (values == nullptr) return *this;
    return {values + row * ld, scales + row * (ld / kScaleBlock), ld};
  }
};

// y[r, j] = sum_k x[r, k] w[j, k], one FMA chain in k per output. `batch` such products with
// strides between them (attention heads); weights of product b are w[b]. A bias, added to the
// finished sums, goes with a batch of one.
struct LinearParams {
  const float* x = nullptr;  // [rows, k] at x + b * x_step, ldx
  std::int64_t ldx = 0;
  std::int64_t x_step = 0;
  const PackedMatrix* w = nullptr;  // [batch], all of the same n and k
  const float* bias = nullptr;      // [n]; null: none
  float* y = nullptr;               // [rows, n] at y + b * y_step, ldy
  std::int64_t ldy = 0;
  std::int64_t y_step = 0;
  int rows = 0;
  int batch = 1;
  bool accumulate = false;  // the chains begin at what y holds, not at zero
  Fp8Rows x_fp8 = {};       // of a batch of one: x
};

// y[r, i] = the FP8 value nearest to x[r, i] / s, times s, times factor[r]. Each 128 inputs of a
// row have an s of their own, the last fewer: their largest magnitude (at least 1e-4) / 448,
// rounded up to a power of two if asked. A quotient beyond 448 counts as 448.
struct QuantiseParams {
  const float* x = nullptr;  // [rows, width], ldx
  std::int64_t ldx = 0;
  const float* factor = nullptr;  // [rows]; null: one
  float* y = nullptr;             // [rows, width], ldy; may be x
  std::int64_t ldy = 0;
  int rows = 0;
  int width = 0;
  bool power_of_two = false;
  Fp8Rows y_fp8 = {};    // y, the factor in its scales
  int for_products = 0;  // y and y_fp8, as RmsNormParams'
};

// Slots [begin, end) of a grouped operator use one expert's weights.
struct Group {
  int begin = 0;
  int end = 0;
};

// A router's choice as groups of slots, sorted by expert: tokens * (1 + top_k) slots. The first
// group is all tokens in order, with weight one, for a shared expert; group 1 + e is the tokens
// that chose expert first_expert + e, rising, with the router's weights.
struct GroupExpertsParams {
  const std::int32_t* chosen = nullptr;  // [tokens, top_k], rising for a token
  const float* weights = nullptr;        // [tokens, top_k]
  int tokens = 0;
  int first_expert = 0;  // of those that have groups; choices of others are passed over
  int experts = 0;
  int top_k = 0;

  std::int32_t* token = nullptr;  // [slots]
  float* weight = nullptr;        // [slots]
  Group* groups = nullptr;        // [1 + experts]
  // [tokens, 1 + top_k] a token's slots in the order of groups; -1: of a choice that has none
  std::int32_t* slot = nullptr;
};

// h[s, j] = silu(g) * u * weight[s] with [g | u] = x[token[s]] times the group's gate and up rows.
// Panel p of a gate_up matrix holds 32 gate columns (j = 32 p ..) and then the same 32 up columns.
// `start` is in that order, too.
struct GateUpParams {
  const float* x = nullptr;  // [tokens, k], ldx
  std::int64_t ldx = 0;
  const std::int32_t* token = nullptr;  // [slots], rising within a group
  const float* weight = nullptr;        // [slots]
  const Group* groups = nullptr;        // [group_count]
  const PackedMatrix* w = nullptr;      // [group_count]
  int group_count = 0;
  float* h = nullptr;  // [slots, width of the group], ldh >= width rounded up to 32
  std::int64_t ldh = 0;
  // Where the chains of the first group begin; null: at zero, which gives the bits of rows of
  // zeros.
  const float* start = nullptr;  // [slots of groups[0], panels * 64], lds
  std::int64_t lds = 0;
  Fp8Rows x_fp8 = {};  // x
  // What has made token and groups of a router's choice, which are data then; null: they are the
  // caller's lists.
  const GroupExpertsParams* routing = nullptr;
  int for_products = 0;  // h, as RmsNormParams'
  RowsTaken taken = RowsTaken::kAsTheyAre;
};

// partial[t] = balanced tree over this rank's segments of (one FMA chain through the groups that
// hold token t, in group order, and through each group's K segment). y[t] = residual[t] +
// partial[t], or partial[t] without residual. Adapters are more groups, with inputs of their own,
// that come after the others in each chain.
struct RowParallelParams {
  const float* h = nullptr;  // [slots, k], ldh
  std::int64_t ldh = 0;
  const std::int32_t* token = nullptr;  // [slots], rising within a group
  const Group* groups = nullptr;        // [group_count]; the first group holds every token
  const SegmentedMatrix* w = nullptr;   // [group_count], all of the same n and segment count
  int group_count = 0;
  int tokens = 0;
  const float* residual = nullptr;  // [tokens, n], ldy; may be y itself
  float* y = nullptr;               // [tokens, n], ldy
  std::int64_t ldy = 0;

  const float* adapter_h = nullptr;  // [adapter slots, k], adapter_ldh
  std::int64_t adapter_ldh = 0;
  const std::int32_t* adapter_token = nullptr;  // [adapter slots], rising within a group
  const Group* adapter_groups = nullptr;        // [adapter_count]
  const SegmentedMatrix* adapter_w = nullptr;   // [adapter_count], as w
  int adapter_count = 0;
  Fp8Rows h_fp8 = {};  // h

  const GroupExpertsParams* routing = nullptr;  // as in GateUpParams
};

// y[i] = residual[i] + the balanced tree over the ranks' partial sums; ranks is 2, 4 or 8.
struct TreeSumParams {
  const float* parts = nullptr;  // [ranks, count]
  int ranks = 0;
  std::int64_t count = 0;           // multiple of 16
  const float* residual = nullptr;  // [count]; may be y itself
  float* y = nullptr;               // [count]
};

// One layer's cache. The key side stands dimension by dimension within a block, so that scores
// have their lanes over positions; the value side position by position. Latent attention has one
// head, whose key is [latent | rotated] and whose value is the latent again; grouped-query
// attention has a key and a value for each of its KV heads. Keys and values are rounded when they
// are written; whoever reads them computes with FP32 values, which are those of the cache.
//   kF32     keys [blocks, heads, key_dim, 64], values [blocks, heads, 64, value_dim]
//   kBF16    the nearest values, on a tie the even ones. What sums run over stands in pairs, as in
//            a packed matrix: keys [blocks, heads, key_dim / 2, 64, 2], values [blocks, heads, 32,
//            value_dim, 2]
//   kF8E4M3  as QuantiseParams' power_of_two for each position and each kScaleBlock of dimensions:
//            a value is FP8 times a power of two, exactly. The last plain_dim dimensions of a key
//            (latent attention's rotated part) are BF16: the keys of a block and head are
//            [key_dim - plain_dim, 64] in FP8, then [plain_dim / 2, 64, 2]; values [blocks, heads,
//            64, value_dim]
struct KvLayer {
  void* keys = nullptr;
  void* values = nullptr;
  int heads = 1;
  int key_dim = 0;    // even; of kBF16 and kF8E4M3 a multiple of 16, as plain_dim
  int value_dim = 0;  // multiple of 16
  DType dtype = DType::kF32;
  int plain_dim = 0;  // kF8E4M3 alone
  // kF8E4M3: [blocks, heads, blocks of dimensions, 64], each times 2^120 as PackedMatrix's. Latent
  // attention's are the same: its keys' scaled part is the value.
  float* key_scales = nullptr;
  float* value_scales = nullptr;
};

// Of one block and head.
constexpr std::int64_t key_block_bytes(const KvLayer& kv) {
  const auto width = static_cast<std::int64_t>(bytes_of(kv.dtype));
  return kKvBlock * ((kv.key_dim - kv.plain_dim) * width + kv.plain_dim * 2);
}
constexpr std::int64_t value_block_bytes(const KvLayer& kv) {
  return kKvBlock * kv.value_dim * static_cast<std::int64_t>(bytes_of(kv.dtype));
}
// Scales of one position and head.
constexpr int key_scales_of(const KvLayer& kv) {
  return (kv.key_dim - kv.plain_dim + kScaleBlock - 1) / kScaleBlock;
}
constexpr int value_scales_of(const KvLayer& kv) {
  return (kv.value_dim + kScaleBlock - 1) / kScaleBlock;
}

// Where a token of the batch stands.
struct TokenPlace {
  std::int32_t position = 0;
  std::int32_t block = 0;  // KV block of this position; its slot is position % 64
};

// Cosines and sines per position for the pairs of a rotated vector: elements (2i, 2i + 1), or with
// `halves` (i, i + pairs).
struct RopeTable {
  const float* cos = nullptr;  // [positions, pairs]
  const float* sin = nullptr;  // [positions, pairs]
  int pairs = 0;
  bool halves = false;
};

// Row t of kv_a = [latent | rope]: norms the latent, rotates the rope part, writes both to the
// cache of one head.
struct KvWriteParams {
  const float* kv_a = nullptr;  // [tokens, key_dim], ld
  std::int64_t ld = 0;
  const float* norm = nullptr;         // [value_dim]
  const TokenPlace* places = nullptr;  // [tokens]
  KvLayer kv;                          // key_dim - value_dim = 2 * rope.pairs
  RopeTable rope;
  int tokens = 0;
  float eps = 0;
};

// The first `rows` positions of a sequence, or of a part of one that begins with a block, in latent
// attention's cache, in FP32.
struct LatentReadParams {
  KvLayer kv;
  const std::int32_t* blocks = nullptr;  // [rows / 64, rounded up], from the first position's on
  int rows = 0;
  float* latents = nullptr;  // [rows, value_dim]
  float* rotated = nullptr;  // [blocks, key_dim - value_dim, 64]
};

// What latents were expanded to, as blocks of a cache of heads in FP32: keys[b, h] = [the first
// `nope` of a position's and head's | the block's rotated part], dimension by dimension, and
// values[b, h] = the others. Positions past the last one are left alone, or have any key.
struct HeadsExpandParams {
  const float* x = nullptr;        // [rows, heads, nope + value]
  const float* rotated = nullptr;  // [blocks, rope, 64], as LatentReadParams have it
  float* keys = nullptr;           // [blocks, heads, nope + rope, 64]
  float* values = nullptr;         // [blocks, heads, 64, value]
  int rows = 0;
  int heads = 0;
  int nope = 0;
  int rope = 0;
  int value = 0;
};

// Qwen3's norm of each head, in place: x = x / sqrt(mean(x^2) + eps) * weight over its dim values.
// dim is a multiple of 16.
struct NormHeadsParams {
  float* x = nullptr;  // [tokens, queries + keys, dim], ldx
  std::int64_t ldx = 0;
  const float* query_weight = nullptr;  // [dim]
  const float* key_weight = nullptr;    // [dim]
  int tokens = 0;
  int queries = 0;
  int keys = 0;
  int dim = 0;
  float eps = 0;
};

// Rotates the keys of every KV head and writes them and the values to the cache.
struct KvWriteHeadsParams {
  const float* k = nullptr;  // [tokens, kv.heads, key_dim], ld
  const float* v = nullptr;  // [tokens, kv.heads, value_dim], ld
  std::int64_t ld = 0;
  const TokenPlace* places = nullptr;  // [tokens]
  KvLayer kv;                          // key_dim = 2 * rope.pairs
  RopeTable rope;
  int tokens = 0;
};

// query[t, h, at ..] = rotated q[t, h, from ..] (2 * rope.pairs values each).
struct RopeQueryParams {
  const float* q = nullptr;  // [tokens, heads, head_dim], ldq
  std::int64_t ldq = 0;
  int head_dim = 0;
  int from = 0;
  float* query = nullptr;  // [tokens, heads, query_dim]
  int query_dim = 0;
  int at = 0;
  const TokenPlace* places = nullptr;  // [tokens]
  RopeTable rope;
  int tokens = 0;
  int heads = 0;
};

// One layer's keys of DeepSeek-V3.2's lightning indexer, dimension by dimension within a block.
struct IndexKeys {
  float* keys = nullptr;  // [blocks, dim, 64]
  int dim = 0;            // multiple of 16
};
inline constexpr int kMaxIndexDim = 256;
inline constexpr int kMaxIndexHeads = kRowBlock;

// Writes layer_norm(x[t]) * weight + bias, its first 2 * rope.pairs elements rotated, to the cache.
struct IndexWriteParams {
  const float* x = nullptr;            // [tokens, keys.dim], contiguous
  const float* weight = nullptr;       // [keys.dim]
  const float* bias = nullptr;         // [keys.dim]
  const TokenPlace* places = nullptr;  // [tokens]
  IndexKeys keys;
  RopeTable rope;
  int tokens = 0;
  float eps = 0;
};

// Which positions tokens attend to: bit i of words[t * ld + b] is position 64 b + i of the sequence
// of token t. None is after the token's own. Null: all up to its own.
struct Selection {
  std::uint64_t* words = nullptr;
  std::int64_t ld = 0;
};

// score[s] = scale * sum_h weights[t, h] * relu(query[t, h] . key[s]) for the positions up to the
// token's own; the top_k highest are selected, on a tie the lower position. A token that sees no
// more than top_k positions attends to all, and its scores are not computed.
struct IndexSelectParams {
  const float* query = nullptr;                       // [tokens, heads, keys.dim], rotated
  const float* weights = nullptr;                     // [tokens, heads]
  const TokenPlace* places = nullptr;                 // [tokens]
  const std::int32_t* const* block_tables = nullptr;  // [tokens] that of the token's sequence
  IndexKeys keys;
  int tokens = 0;
  int heads = 0;
  int top_k = 0;
  float scale = 0;
  float* scores = nullptr;  // [kIndexRows, ld_scores] scratch; token t uses row t % kIndexRows
  std::int64_t ld_scores = 0;
  Selection selection;  // [tokens]
};
inline constexpr int kIndexRows = 64;

// Rows of consecutive (token, query head) pairs of one sequence and one KV head, as one work item.
struct AttentionItem {
  std::int32_t row_begin = 0;  // row = token in the batch * heads + head
  std::int32_t row_end = 0;
  const std::int32_t* block_table = nullptr;
  std::int32_t kv_head = 0;
};

// out[row] = softmax(scale * query . keys) values, over positions 0 .. the token's own or those of
// them that are selected, one split per KV block: each split has its own maximum and sums, splits
// are merged in order. A block in which nothing is selected changes no bit.
struct AttentionParams {
  const float* query = nullptr;        // [tokens, kv.heads, heads, key_dim]
  float* out = nullptr;                // [tokens, kv.heads, heads, value_dim]
  const TokenPlace* places = nullptr;  // [tokens]
  const AttentionItem* items = nullptr;
  int item_count = 0;
  int heads = 0;  // query heads of one KV head
  KvLayer kv;
  float scale = 0;
  Selection selection = {};
  int for_products = 0;  // out, a row for each token, as RmsNormParams'
  RowsTaken taken = RowsTaken::kAsTheyAre;
};
// (token, head) pairs of one work item at most.
inline constexpr int kAttentionRows = 32;

// How a router scores experts and groups of them.
enum class RouterRule : std::uint8_t {
  // DeepSeek-V3's noaux_tc: s = sigmoid(logits), the choice is by s + bias, a group's score is the
  // sum of its two best.
  kSigmoidBias,
  // DeepSeek-V2's: s = softmax(logits), the choice is by s, a group's score is its best.
  kSoftmax,
};

// Only experts of the best topk_group groups are chosen from; ties go to the lowest id. The weights
// are s of the chosen (without bias), normalised if asked, times scale. Experts of a token come out
// in rising id.
struct RouterParams {
  const float* logits = nullptr;  // [tokens, experts], ld
  std::int64_t ld = 0;
  RouterRule rule = RouterRule::kSigmoidBias;
  const float* bias = nullptr;  // [experts]; kSoftmax: not read
  int tokens = 0;
  int experts = 0;
  int groups = 0;
  int topk_groups = 0;
  int top_k = 0;
  bool normalise = false;
  float scale = 0;
  std::int32_t* chosen = nullptr;  // [tokens, top_k]
  float* weights = nullptr;        // [tokens, top_k]
};
inline constexpr int kMaxExperts = 1024;
inline constexpr int kMaxTopK = 64;

}  // namespace dsm::kernels
