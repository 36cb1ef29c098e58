// The matrix product with both sides in FP8 for so many rows that tensor cores are what limits it:
// stages and sums are those of product_wide_fp8.cu, to the bit, by pairs of thread blocks as in
// product_paired.cu.
//
// A block has 256 rows and two panels; those of a pair have the same rows, of which each copies one
// half into both. Four threads, each of a warp of its own, start copies, as far ahead as the ring
// of stages reaches, also while the others write their sums out. Two warpgroups multiply, a panel
// each, and meet nobody but at the barriers that say that a stage is there: so one is in the middle
// of a stage while the other goes from one to the next, and the tensor cores always have a product
// to do.
//
// A product is 128 inputs by 64 rows and begins at zero. There are two sets of registers for it:
// the tensor cores fill one while the other is multiplied by both scales and added up in FP32.
// Nothing is in flight from one stage to the next, which the compiler could not follow.
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/fp8_rows.cuh"
#include "kernels/cuda/fp8_stage.cuh"
#include "kernels/cuda/paired_rows.cuh"
#include "kernels/cuda/product_wide.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kRows = kFp8HeldRows;
constexpr int kPanels = kPairedPanels / kPairedBlocks;  // of a block, one for each warpgroup
constexpr int kGroupWarps = 4;
constexpr int kWorkers = kPanels * kGroupWarps;  // warps that multiply
constexpr int kCopiers = 4;                      // threads, each of a warp of its own
constexpr int kThreads = (kWorkers + kCopiers) * 32;
constexpr int kWorkerRegisters = 232;
constexpr int kCopyRegisters = 40;
static_assert(kWorkers * kWorkerRegisters + kCopiers * kCopyRegisters <= 65536 / 32);

// A stage: rows and their scales as they are in memory, then panels with theirs. Rows are aligned
// to 1,024 bytes.
constexpr int kRowsBytes = kRows * kFp8StageInputs;
constexpr int kPanelsAt = wide_fp8_stage_bytes(kRows);
constexpr int kScalesBytes = kPanel * 4;
constexpr int kPanelScalesAt = kFp8Pieces * kFp8PieceBytes;
constexpr int kPanelBytes = kPanelScalesAt + kScalesBytes;
constexpr int kStageBytes = static_cast<int>(round_up(kPanelsAt + kPanels * kPanelBytes, 1024));
constexpr int kRing = 4;

// What SwiGLU needs: rows of sums, 4 floats apart on the banks, so many at a time; and the largest
// magnitude that each block has of each row, of two pieces of the work in turn.
constexpr int kOutRows = 32;
constexpr int kOutStride = kPanels * kPanel + 4;
constexpr int kOutFloats = kOutRows * kOutStride;
constexpr int kLargestFloats = 2 * kPairedBlocks * kRows;
constexpr int kSharedBytes =
    kRing * (kStageBytes + 16) + (kOutFloats + kLargestFloats) * 4 + 2 * 8 + 1024;
static_assert(kSharedBytes <= kMostHopperBytes);

constexpr int kBlocks = kRows / kFp8BlockRows;  // products of a stage
constexpr int kBlockBytes = kFp8BlockRows * kFp8StageInputs;
constexpr int kBlockSums = kFp8BlockRows / 2;  // of a lane
using Sums = float[kBlocks][kBlockSums];

// A pair's piece of the work, and what a block of it reads.
struct Piece {
  const ProductTask* task;  // none: the piece is not there
  int row;
  int panel;                  // the block's first
  const unsigned char* rows;  // [stages]
};
DSM_HOST_DEVICE int pieces_of(const Products& p) {
  return p.tile_count * paired_columns(p.panels);
}
__device__ __forceinline__ Piece piece_of(const WideFp8Products& wide, int number, int block) {
  const Products& p = wide.params;
  const PairedPiece at = paired_piece(number, p.tile_count, paired_columns(p.panels));
  const ProductTile tile = p.tiles[at.tile];
  const ProductTask* task = p.tasks + tile.task;
  const int first = at.column * kPairedPanels;
  const bool there = tile.row < task->rows && first * kPanel < task->w.n;
  return {there ? task : nullptr, tile.row, first + block * kPanels,
          static_cast<const unsigned char*>(p.x_operands) +
              static_cast<std::int64_t>(at.tile) * wide.stages * kPanelsAt};
}

// What stands in shared memory. Stages are numbered through all pieces of a block.
struct Ring {
  unsigned char* first;

  static __device__ __forceinline__ Ring make() {
    auto* at = dynamic_shared<unsigned char>();
    return {at + (1024 - reinterpret_cast<std::uintptr_t>(at) % 1024) % 1024};
  }
  __device__ __forceinline__ unsigned char* stage(unsigned i) const {
    return first + i % kRing * kStageBytes;
  }
  static __device__ __forceinline__ int turn(unsigned i) { return static_cast<int>(i / kRing); }
  __device__ __forceinline__ float* out() const {  // [kOutRows][kOutStride]
    return reinterpret_cast<float*>(first + kRing * kStageBytes);
  }
  __device__ __forceinline__ float* largest() const { return out() + kOutFloats; }
  __device__ __forceinline__ std::uint64_t* barriers() const {
    return reinterpret_cast<std::uint64_t*>(largest() + kLargestFloats);
  }
  __device__ __forceinline__ std::uint64_t* filled(unsigned i) const {
    return barriers() + i % kRing;
  }
  __device__ __forceinline__ std::uint64_t* read(unsigned i) const {
    return barriers() + kRing + i % kRing;
  }
  // The largest magnitudes of every other piece are there.
  __device__ __forceinline__ std::uint64_t* found(unsigned i) const {
    return barriers() + 2 * kRing + i % 2;
  }
};

// Panel `number` of the weights, or their last: a panel past it is computed as that, for nobody.
__device__ __forceinline__ int there_of(const PackedMatrix& w, int number) {
  const int last = (w.n + kPanel - 1) / kPanel - 1;
  return number < last ? number : last;
}

// By each of the copying threads: a piece of 32 inputs of both panels, and then the first two a
// quarter of the pair's rows each, the third their scales, the last those of the panels. Of rows
// and their scales a block copies one half into both blocks.
static_assert(kFp8Pieces == kCopiers && kPairedBlocks == 2);
__device__ void fill(const WideFp8Products& wide, const Ring& ring, int block, int copier) {
  constexpr int kHalf = kRowsBytes / kPairedBlocks;
  constexpr int kQuarter = kHalf / 2;
  constexpr int kHalfScales = kRows / kPairedBlocks * 4;
  const int share = copier < 2 ? kQuarter : kHalfScales;
  const int share_at =
      copier < 2 ? block * kHalf + copier * kQuarter : kRowsBytes + block * kHalfScales;
  const int others = copier < 3 ? kPairedBlocks * share : kPanels * kScalesBytes;
  unsigned at = 0;
  for (int number = static_cast<int>(blockIdx.x); number < pieces_of(wide.params);
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = piece_of(wide, number, block);
    if (piece.task == nullptr) continue;
    const PackedMatrix& w = piece.task->w;
    const int stages = splits_of(w);
    const unsigned char* rows = piece.rows + share_at;
    const unsigned char* weights[kPanels];
    const float* scales[kPanels];
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      const int panel = there_of(w, piece.panel + i);
      weights[i] = static_cast<const unsigned char*>(w.data) +
                   (static_cast<std::int64_t>(panel) * w.k + copier * kFp8PieceInputs) * kPanel;
      scales[i] = w.scales + static_cast<std::int64_t>(panel) * stages * kPanel;
    }
    int left = w.k - copier * kFp8PieceInputs;
    for (int stage = 0; stage < stages; ++stage, ++at) {
      unsigned char* to = ring.stage(at);
      std::uint64_t* filled = ring.filled(at);
      const int inputs = left < 0 ? 0 : left < kFp8PieceInputs ? left : kFp8PieceInputs;
      const int bytes = inputs * kPanel;
      if (at >= kRing) arrivals_wait(ring.read(at), Ring::turn(at) - 1);
      copies_expect(filled, others + kPanels * bytes);
      if (copier < 3) {
        copy_bytes_to_cluster(to + share_at, rows, share, filled, kPairedBlocks);
        rows += kPanelsAt;
      }
      to += kPanelsAt;
#pragma unroll
      for (int i = 0; i < kPanels; ++i) {
        if (bytes > 0) {
          copy_bytes(to + i * kPanelBytes + copier * kFp8PieceBytes, weights[i], bytes, filled);
        }
        if (copier == 3) {
          copy_bytes(to + i * kPanelBytes + kPanelScalesAt, scales[i], kScalesBytes, filled);
          scales[i] += kPanel;
        }
        weights[i] += kFp8StageInputs * kPanel;
      }
      left -= kFp8StageInputs;
    }
  }
}

// `from`: the lane's line (fp8_line).
__device__ __forceinline__ void load_stage(const unsigned char* from, StageWeights& to) {
#pragma unroll
  for (int step = 0; step < kFp8StageSteps; ++step) {
    load_transposed(from + step * kFp8StepBytes, to.v[step]);
  }
}
// `left`: inputs of the matrix from the stage's first on.
__device__ __forceinline__ void make_operands(int left, int lane, StageWeights& loaded,
                                              StageWeights& weights) {
  if (left < kFp8StageInputs) {
#pragma unroll
    for (int step = 0; step < kFp8StageSteps; ++step) {
      clear_fp8_inputs(step, left - lane % 4 * kFp8PieceInputs, loaded.v[step]);
    }
  }
#pragma unroll
  for (int step = 0; step < kFp8StageSteps; ++step) {
    fp8_operand_of(loaded.v[step]);
#pragma unroll
    for (int i = 0; i < 4; ++i) weights.v[step][i] = loaded.v[step][i];
    wgmma_ready(weights.v[step]);
  }
}

// The scales of a lane's rows of a product, four neighbours of every 16: some are read before the
// product is there, the others meanwhile.
constexpr int kScalesAhead = 1;
struct RowScales {
  const float* from;
  Four<float> ahead[kScalesAhead];

  __device__ __forceinline__ explicit RowScales(const float* at) : from(at) {
#pragma unroll
    for (int i = 0; i < kScalesAhead; ++i) ahead[i] = load_four(at + i * 16);
  }
};
// Adds what a product has given, times the scales of rows and columns: as product_wide_fp8.cu.
__device__ __forceinline__ void add_scaled(const float (&product)[kBlockSums],
                                           const RowScales& rows, const float (&columns)[2],
                                           float (&sums)[kBlockSums]) {
#pragma unroll
  for (int j = 0; j < kBlockSums / 8; ++j) {
    const Four<float> of_rows = j < kScalesAhead ? rows.ahead[j] : load_four(rows.from + j * 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float scaled = product[8 * j + i] * of_rows.v[i / 4 * 2 + i % 2];
      sums[8 * j + i] = fmaf(scaled, columns[i / 2 % 2], sums[8 * j + i]);
    }
  }
}

// The sums of a warpgroup's panel in all rows of a piece, whose first stage is number `at`.
__device__ __forceinline__ void multiply(const Ring& ring, unsigned at, int stages, int inputs,
                                         int warp, int lane, Sums& sums) {
  const int panel_at = kPanelsAt + warp / kGroupWarps * kPanelBytes;
  const int line_at = panel_at + fp8_line(warp, lane);
  const int columns_at = panel_at + kPanelScalesAt + (warp % kGroupWarps * 16 + lane / 4 * 2) * 4;
  const int scales_at = kRowsBytes + lane % 4 * 16;
  StageWeights loaded;
  StageWeights weights;
  float products[2][kBlockSums] = {};
  copies_wait(ring.filled(at), Ring::turn(at));
  load_stage(ring.stage(at) + line_at, loaded);
  make_operands(inputs, lane, loaded, weights);
#pragma unroll 1
  for (int i = 0; i < stages; ++i, ++at) {
    const unsigned char* stage = ring.stage(at);
    const auto* row_scales = reinterpret_cast<const float*>(stage + scales_at);
    // The next stage, or this one again, whose weights are for nothing then.
    const unsigned next = i + 1 < stages ? at + 1 : at;
    float columns[2];
    start_product(weights, stage, products[0]);
#pragma unroll
    for (int b = 0; b + 1 < kBlocks; ++b) {
      start_product(weights, stage + (b + 1) * kBlockBytes, products[(b + 1) % 2]);
      if (b == 0) {
        const float2 stored = *reinterpret_cast<const float2*>(stage + columns_at);
        columns[0] = stored.x * 0x1p-120F;  // params.h: times 2^120
        columns[1] = stored.y * 0x1p-120F;
      }
      // Here, where no product is half added up and registers are free.
      if (b == kBlocks - 2) copies_wait(ring.filled(next), Ring::turn(next));
      const RowScales scales(row_scales + b * kFp8BlockRows);
      wgmma_wait<1>();
      wgmma_done(products[b % 2]);
      add_scaled(products[b % 2], scales, columns, sums[b]);
    }
    // To registers that the products before the last have left.
    load_stage(ring.stage(next) + line_at, loaded);
    const RowScales scales(row_scales + (kBlocks - 1) * kFp8BlockRows);
    wgmma_wait<0>();
    wgmma_done(products[(kBlocks - 1) % 2]);
    add_scaled(products[(kBlocks - 1) % 2], scales, columns, sums[kBlocks - 1]);
    // This one is not read any more. In both blocks: either copies into the other's.
    __syncwarp();
    if (lane < kPairedBlocks) arrive(ring.read(at), lane);
    make_operands(inputs - (i + 1) * kFp8StageInputs, lane, loaded, weights);
  }
}

// A thread's sums are those of two neighbouring columns in rows 2 q and 2 q + 1 of every eight.
constexpr int kThreadRows = kBlocks * kBlockSums / 2;
__device__ __forceinline__ float2 sums_of(const Sums& sums, int i) {
  const float(&block)[kBlockSums] = sums[i / (kBlockSums / 2)];
  const int at = i % (kBlockSums / 2) / 2 * 4 + i % 2;
  return make_float2(block[at], block[at + 2]);
}
__device__ __forceinline__ void set_sums(Sums& sums, int i, float2 two) {
  float(&block)[kBlockSums] = sums[i / (kBlockSums / 2)];
  const int at = i % (kBlockSums / 2) / 2 * 4 + i % 2;
  block[at] = two.x;
  block[at + 2] = two.y;
}

// Two values beside each other, which are aligned, or of which the second may not be there.
template <bool kAligned>
__device__ __forceinline__ float2 load_two(const float* from, bool both) {
  if (kAligned) return *reinterpret_cast<const float2*>(from);
  return make_float2(from[0], both ? from[1] : 0.0F);
}
template <bool kAligned>
__device__ __forceinline__ void store_two(float* to, bool both, float2 two) {
  if (kAligned) {
    *reinterpret_cast<float2*>(to) = two;
    return;
  }
  to[0] = two.x;
  if (both) to[1] = two.y;
}
__device__ __forceinline__ bool in_twos(const float* from) {
  return reinterpret_cast<std::uintptr_t>(from) % sizeof(float2) == 0;
}

// Adds what stands in memory, for so many rows at a time that are all asked for before any of it is
// there; past the last of the thread's rows, that one again.
constexpr int kAhead = 8;
template <bool kAligned>
__device__ __forceinline__ void add(Sums& sums, const float* from, int ld, bool both, int last) {
#pragma unroll
  for (int first = 0; first < kThreadRows; first += kAhead) {
    float2 values[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int row = row_of_sums(first + i);
      values[i] = load_two<kAligned>(from + (row < last ? row : last) * ld, both);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const float2 sum = sums_of(sums, first + i);
      set_sums(sums, first + i, make_float2(sum.x + values[i].x, sum.y + values[i].y));
    }
  }
}

template <bool kAligned>
__device__ __forceinline__ void put_rows(const Products& p, const ProductTask& task, int first_row,
                                         int column, Sums& sums) {
  const int last = task.rows - 1 - first_row;
  const bool both = column + 1 < task.w.n;
  const std::int64_t at = first_row * p.ldy + column;
  const auto ldy = static_cast<int>(p.ldy);  // times a row of the tile that is not much
  const int own = own_last(last);
  if (p.accumulate) add<kAligned>(sums, task.y + at, ldy, both, own);
  if (p.bias != nullptr) add<kAligned>(sums, p.bias + column, 0, both, own);
  if (p.residual != nullptr) add<kAligned>(sums, p.residual + at, ldy, both, own);
  float* to = task.y + at;
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    const int row = row_of_sums(i);
    if (row <= last) store_two<kAligned>(to + row * ldy, both, sums_of(sums, i));
  }
}
__device__ __forceinline__ void put_added(const Products& p, const ProductTask& task, int first_row,
                                          int column, Sums& sums) {
  if (first_row >= task.rows || column >= task.w.n) return;
  if (p.ldy % 2 == 0 && task.w.n % 2 == 0 && in_twos(task.y) && in_twos(p.bias) &&
      in_twos(p.residual)) {
    put_rows<true>(p, task, first_row, column, sums);
  } else {
    put_rows<false>(p, task, first_row, column, sums);
  }
}

// SwiGLU: sums go to shared memory as rows, some at a time, from where 16 lanes take four columns
// of a row each, and what these gate.
constexpr int kWorkersBarrier = 1;
constexpr int kLanes = 16;
constexpr int kWorkerRows = kRows / (kWorkers * 2);  // of half a warp
constexpr int kTakes = kOutRows / (kWorkers * 2);    // at a time
struct Gated {
  int panel;   // of the block
  int column;  // of the panel's first half
  int row;     // the first, of the piece

  static __device__ __forceinline__ Gated of(int warp, int lane) {
    return {lane % kLanes / 8, lane % 8 * 4, warp * 2 + lane / kLanes};
  }
  // Its row number i.
  __device__ __forceinline__ int at(int i) const { return row + i * (kWorkers * 2); }
};

// Calls put(i, values) for the thread's rows i in turn. By all warps that multiply.
template <class Put>
__device__ __forceinline__ void each_gated(const WideFp8Products& wide, const ProductTask& task,
                                           const Piece& piece, float* out, int warp, int lane,
                                           const Sums& sums, const Put& put) {
  const Products& p = wide.params;
  constexpr int kPieceSums = kOutRows / 4;  // rows of a thread's sums
  const Gated mine = Gated::of(warp, lane);
  float* const to = out + lane % 4 * 2 * kOutStride + warp * 16 + lane / 4 * 2;
  const float* const from = out + mine.row * kOutStride + mine.panel * kPanel + mine.column;
#pragma unroll
  for (int part = 0; part < kRows / kOutRows; ++part) {
    barrier_of_first(kWorkersBarrier, kWorkers * 32);
#pragma unroll
    for (int i = 0; i < kPieceSums; ++i) {
      *reinterpret_cast<float2*>(to + row_of_sums(i) * kOutStride) =
          sums_of(sums, part * kPieceSums + i);
    }
    barrier_of_first(kWorkersBarrier, kWorkers * 32);
#pragma unroll
    for (int i = 0; i < kTakes; ++i) {
      const float* line = from + i * (kWorkers * 2) * kOutStride;
      const Four<float> gate = load_four(line);
      const Four<float> up = load_four(line + kPanel / 2);
      const int number = part * kTakes + i;
      const int row = piece.row + mine.at(number);
      const float weight = p.weight[task.first_row + (row < task.rows ? row : task.rows - 1)];
      Four<float> h;
#pragma unroll
      for (int j = 0; j < 4; ++j) h.v[j] = gated(gate.v[j], up.v[j], weight);
      put(number, h);
    }
  }
}

__device__ __forceinline__ void put_gated(const WideFp8Products& wide, const ProductTask& task,
                                          const Piece& piece, float* out, int warp, int lane,
                                          Sums& sums) {
  const Products& p = wide.params;
  if (task.start != nullptr) {
    const int column = piece.panel * kPanel + warp * 16 + lane / 4 * 2;
    const int first_row = piece.row + lane % 4 * 2;
    const int last = task.rows - 1 - first_row;
    if (column < task.w.n && last >= 0) {
      add<false>(sums, task.start + first_row * p.lds + column, static_cast<int>(p.lds), true,
                 last);
    }
  }
  const Gated mine = Gated::of(warp, lane);
  const int panel = piece.panel + mine.panel;
  const bool there = panel * kPanel < task.w.n;
  const bool aligned = p.ldy % 4 == 0 && reinterpret_cast<std::uintptr_t>(task.y) % 16 == 0;
  float* const y = task.y + panel * (kPanel / 2) + mine.column;
  each_gated(wide, task, piece, out, warp, lane, sums, [&](int number, const Four<float>& h) {
    const std::int64_t row = piece.row + mine.at(number);
    if (!there || row >= task.rows) return;
    float* to = y + row * p.ldy;
    if (aligned) {
      *reinterpret_cast<Four<float>*>(to) = h;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) to[j] = h.v[j];
    }
  });
}

// The same rounded to FP8, as rows of the next product, of which a pair has the 128 inputs of a
// scale: each block tells the other the largest magnitude that it has of a row. `turn`: how often
// it has been done.
__device__ __forceinline__ void put_operands(const WideFp8Products& wide, const ProductTask& task,
                                             const Piece& piece, const Ring& ring, unsigned turn,
                                             int block, int warp, int lane, const Sums& sums) {
  const Gated mine = Gated::of(warp, lane);
  // A panel past the last gives zeros: inputs that the next product has no weights for.
  const bool there = (piece.panel + mine.panel) * kPanel < task.w.n;
  float* const largest = ring.largest() + turn % 2 * (kPairedBlocks * kRows);
  Four<float> held[kWorkerRows];
  each_gated(wide, task, piece, ring.out(), warp, lane, sums,
             [&](int number, const Four<float>& h) {
               held[number] = there ? h : Four<float>{};
               float most = 0.0F;
#pragma unroll
               for (const float v : held[number].v) most = fmaxf(most, fabsf(v));
#pragma unroll
               for (int step = kLanes / 2; step > 0; step /= 2) {
                 most = fmaxf(most, __shfl_xor_sync(0xffffffffU, most, step));
               }
               if (lane % kLanes < kPairedBlocks) {
                 store_in_block(largest + block * kRows + mine.at(number), lane % kLanes, most);
               }
             });
  __syncwarp();
  std::uint64_t* const found = ring.found(turn);
  if (lane < kPairedBlocks) arrive_with_stores(found, lane);
  stores_wait(found, static_cast<int>(turn / 2));
  const int stage = piece.panel / kPairedPanels;
#pragma unroll
  for (int i = 0; i < kWorkerRows; ++i) {
    const int row = mine.at(i);
    const float scale =
        activation_scale_of(fmaxf(largest[row], largest[kRows + row]), wide.to.power_of_two);
    if (piece.row + row >= task.rows) continue;
    unsigned char* to = fp8_stage_of(wide.to, piece.row, stage);
    reinterpret_cast<std::uint32_t*>(to)[fp8_word_at(row, block * kLanes + lane % kLanes)] =
        e4m3_four(held[i], scale);
    if (block == 0 && lane % kLanes == 0) put_fp8_scale(to, row, scale);
  }
}

// What is done with sums.
enum class Then : std::uint8_t { kAdd, kGate, kGateAndRound };

template <Then kThen>
__device__ void work(const WideFp8Products& wide, const Ring& ring, int block, int warp, int lane) {
  const Products& p = wide.params;
  unsigned at = 0;
  unsigned turn = 0;
  for (int number = static_cast<int>(blockIdx.x); number < pieces_of(p);
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = piece_of(wide, number, block);
    if (piece.task == nullptr) continue;
    const ProductTask& task = *piece.task;
    const int stages = splits_of(task.w);
    Sums sums = {};
    multiply(ring, at, stages, task.w.k, warp, lane, sums);
    at += static_cast<unsigned>(stages);
    if constexpr (kThen == Then::kGateAndRound) {
      put_operands(wide, task, piece, ring, turn, block, warp, lane, sums);
      ++turn;
    } else if constexpr (kThen == Then::kGate) {
      if (piece.panel * kPanel >= task.w.n) continue;  // all of the block's warps do
      put_gated(wide, task, piece, ring.out(), warp, lane, sums);
    } else {
      const int column = piece.panel * kPanel + warp * 16 + lane / 4 * 2;
      put_added(p, task, piece.row + lane % 4 * 2, column, sums);
    }
  }
}

template <Then kThen>
__global__ void __launch_bounds__(kThreads, 1) paired_fp8_kernel(const WideFp8Products wide) {
  follow_previous_kernel();
  const int block = block_of_cluster();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Ring ring = Ring::make();
  if (threadIdx.x == 0) {
    for (unsigned i = 0; i < kRing; ++i) {
      copies_begin(ring.filled(i), kCopiers);
      arrivals_begin(ring.read(i), kPairedBlocks * kWorkers);
    }
    for (unsigned i = 0; i < 2; ++i) arrivals_begin(ring.found(i), kPairedBlocks * kWorkers);
  }
  cluster_barrier();  // barriers have begun in both
  if (warp < kWorkers) {
    take_registers<kWorkerRegisters>();
    work<kThen>(wide, ring, block, warp, lane);
  } else {
    leave_registers<kCopyRegisters>();
    if (lane == 0) fill(wide, ring, block, warp - kWorkers);
    __syncwarp();
  }
  cluster_barrier();  // the other one copies nothing here any more, nor comes to a barrier
}

template <Then kThen>
void launch_pairs(const WideFp8Products& wide, Stream stream) {
  const int pieces = pieces_of(wide.params);
  const int pairs = wide.processors / kPairedBlocks;
  const dim3 grid(static_cast<unsigned>(pieces < pairs ? pieces : pairs), kPairedBlocks);
  launch_clusters(kPairedBlocks, paired_fp8_kernel<kThen>, grid, kThreads, kSharedBytes, stream,
                  wide);
}

}  // namespace

void paired_fp8_products(const WideFp8Products& wide, Stream stream) {
  if (wide.to.data != nullptr) return launch_pairs<Then::kGateAndRound>(wide, stream);
  if (wide.params.swiglu) return launch_pairs<Then::kGate>(wide, stream);
  launch_pairs<Then::kAdd>(wide, stream);
}

}  // namespace dsm::kernels::cuda
