// The matrix product for so many rows that tensor cores are what limits it: as product_wide.cu, its
// sides turned and rows and weights laid out alike, by pairs of thread blocks on processors next to
// each other.
//
// A block has 256 rows and two panels, 128 columns. Those of a pair have the same rows, of which
// each reads one half from the second cache for both: for as much arithmetic as the tensor cores do
// in 1,024 cycles a processor reads 32 KiB there instead of the 48 that a block alone would.
//
// How stages come and go is in paired_stages.cuh.
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/paired_rows.cuh"
#include "kernels/cuda/paired_stages.cuh"

namespace dsm::kernels::cuda {
namespace {

using paired::kGroupWarps;
using paired::kPanels;
using paired::kRowsBytes;
using paired::kWorkers;
using paired::Piece;

constexpr int kRows = kPairedRows;
static_assert(kRows == kPairedBlocks * kUnitRows);
constexpr int kHalf = kPanel / 2;

// And a unit's stage of what goes to the next product: [kUnitRows][kRowWords].
template <DType kType>
using Ring = paired::Ring<StageLayout<kType>, 4, kUnitStageBytes>;

// Pieces are numbered by tile, then by columns: pairs that run at the same time read the same
// weights, or the same rows.
struct Pieces {
  static DSM_HOST_DEVICE int count(const WideProducts& wide) {
    const Products& p = wide.params;
    return p.tile_count * ((p.panels + kPairedPanels - 1) / kPairedPanels);
  }
  static __device__ __forceinline__ Piece of(const WideProducts& wide, int number, int block) {
    const Products& p = wide.params;
    const int tile_number = number % p.tile_count;
    const ProductTile tile = p.tiles[tile_number];
    const ProductTask* task = p.tasks + tile.task;
    const int first = number / p.tile_count * kPairedPanels;
    const bool there = tile.row < task->rows && first * kPanel < task->w.n;
    const std::int64_t unit = std::int64_t{tile_number} * kPairedBlocks + block;
    return {there ? task : nullptr,
            tile.row,
            first + block * kPanels,
            static_cast<const unsigned char*>(p.x_operands) + unit * wide.stages * kUnitStageBytes,
            0,
            wide_stages(task->w)};
  }
  static __device__ __forceinline__ constexpr int rows(const Piece&) { return kUnitRows; }
};

// A lane's weights of a stage: operands A, of which lines g are columns of the panel's first half
// and lines g + 8 those 32 further, so that a gate is in the same thread as what it gates.
struct StageWeights {
  std::uint32_t v[kStageSteps][4];
};
// `from`: the lane's piece, at its column; `scales`: the column's. Pairs from `left` on are not
// there.
template <DType kType>
__device__ __forceinline__ void load_stage(const unsigned char* from, const float* scales, int left,
                                           StageWeights& to) {
  const PieceColumns<kType, 1> columns[2] = {
      {from, scales}, {from + kHalf * StageLayout<kType>::kColumnBytes, scales + kHalf}};
#pragma unroll
  for (int step = 0; step < kStageSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int pair = step * 2 + i / 2;
      const std::uint32_t word = columns[i % 2].pair(pair).v[0];
      to.v[step][i] = pair < left ? word : 0;
    }
    wgmma_ready(to.v[step]);
  }
}

// The sums of a warpgroup's panel in all rows of a piece, whose first stage is number `at`.
template <DType kType>
__device__ __forceinline__ void multiply(const Ring<kType>& ring, int at, int stages, int pairs,
                                         int warp, int lane, float (&sums)[kRows / 2]) {
  using Layout = StageLayout<kType>;
  const int column = warp % kGroupWarps * 8 + lane / 4;
  const int weights = kRowsBytes + warp / kGroupWarps * Layout::kPanelBytes +
                      lane % 4 * Layout::kPieceBytes + column * Layout::kColumnBytes;
  const int scales =
      paired::Stage<Layout>::kScalesAt + warp / kGroupWarps * Layout::kScaleBytes + column * 4;
  StageWeights held[2];
  const auto take = [&](int stage, StageWeights& to) {
    copies_wait(ring.filled + (at + stage) % Ring<kType>::kRing, Ring<kType>::turn(at + stage));
    const unsigned char* from = ring.stage(at + stage);
    load_stage<kType>(from + weights, reinterpret_cast<const float*>(from + scales),
                      pairs - stage * kStagePairs - lane % 4 * kPiecePairs, to);
  };
  const auto give_back = [&](int stage) { ring.give_back(at + stage, lane); };
  take(0, held[0]);
  for (int first = 0; first < stages; first += 2) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int stage = first + b;
      const SharedRows rows = shared_rows(ring.stage(at + stage));
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kStageSteps; ++step) wgmma_bf16(sums, held[b].v[step], rows, step);
      wgmma_commit();
      wgmma_wait<1>();  // so the stage before has been read, and its registers are free
      if (stage > 0) give_back(stage - 1);
      if (stage + 1 >= stages) break;
      take(stage + 1, held[1 - b]);
    }
  }
  wgmma_wait<0>();
  wgmma_done(sums);
  give_back(stages - 1);
}

// A thread's sums are those of two columns, kHalf apart, in rows 8j and 8j + 1 from its first on.
// They go straight to memory, 32 bytes of a row by eight lanes.
using Sums = float[kRows / 2];
constexpr int kThreadRows = kRows / 4;
__device__ __forceinline__ float& sum_of(Sums& sums, int i, int half) {
  return sums[i / 2 * 4 + half * 2 + i % 2];
}

// What stands in memory for so many of a thread's rows, of which the last one is `last`; past it,
// that one again, so that all can be asked for before any of it is there.
template <int kCount>
__device__ __forceinline__ void load_rows(const float* from, std::int64_t ld, int first, int last,
                                          float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int row = row_of_sums(first + i);
    values[i] = from[(row < last ? row : last) * ld];
  }
}

// Rows that are asked for at a time; fewer where registers hold more besides.
constexpr int kAhead = 16;
constexpr int kGatedAhead = 8;

// Adds what stands in memory; `second` is where the second column's does.
__device__ __forceinline__ void add(Sums& sums, const float* from, const float* second,
                                    std::int64_t ld, int last) {
#pragma unroll
  for (int first = 0; first < kThreadRows; first += kAhead) {
    float values[2][kAhead];
    load_rows(from, ld, first, last, values[0]);
    load_rows(second, ld, first, last, values[1]);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      sum_of(sums, first + i, 0) += values[0][i];
      sum_of(sums, first + i, 1) += values[1][i];
    }
  }
}

__device__ __forceinline__ void put_gated(const Products& p, const ProductTask& task, int first_row,
                                          int panel, int line, Sums& sums) {
  const int last = task.rows - 1 - first_row;
  if (task.start != nullptr) {
    const float* start = task.start + first_row * p.lds + panel * kPanel + line;
    add(sums, start, start + kHalf, p.lds, own_last(last));
  }
  const float* weight = p.weight + task.first_row + first_row;
  float* to = task.y + first_row * p.ldy + panel * kHalf + line;
#pragma unroll
  for (int first = 0; first < kThreadRows; first += kAhead) {
    float weights[kAhead];
    load_rows(weight, 1, first, last, weights);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int row = row_of_sums(first + i);
      const float h = gated(sum_of(sums, first + i, 0), sum_of(sums, first + i, 1), weights[i]);
      if (row <= last) to[row * p.ldy] = h;
    }
  }
}

// The same as rows of the next product. Half of the rows at a time, a unit's stage of which each
// panel has one half of the inputs, is put together in shared memory and copied on as it is.
constexpr int kWorkersBarrier = 1;
__device__ __forceinline__ void put_operands(const WideProducts& wide, const ProductTask& task,
                                             const Piece& piece, std::uint32_t* out, int warp,
                                             int lane, Sums& sums) {
  const int panel = warp / kGroupWarps;
  // A panel past the last gives zeros: inputs that the next product has no weights for.
  const bool there = (piece.panel + panel) * kPanel < task.w.n;
  const int pair = panel * (kPanel / 4) + warp % kGroupWarps * 4 + lane / 8;
  const int odd = lane / 4 % 2;
  const int first_row = piece.row + lane % 4 * 2;
  const float* weight = wide.params.weight + task.first_row + first_row;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (threadIdx.x == 0) stores_have_read();
    barrier_of_first(kWorkersBarrier, kWorkers * 32);
#pragma unroll
    for (int first = 0; first < kThreadRows / 2; first += kGatedAhead) {
      const int begin = half * (kThreadRows / 2) + first;
      float weights[kGatedAhead];
      load_rows(weight, 1, begin, task.rows - 1 - first_row, weights);
#pragma unroll
      for (int i = 0; i < kGatedAhead; i += 2) {
        float h[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          h[r] =
              gated(sum_of(sums, begin + i + r, 0), sum_of(sums, begin + i + r, 1), weights[i + r]);
        }
        // Of two rows a lane has one of the pair's inputs, and puts the pair of one row.
        const float other = __shfl_xor_sync(0xffffffffU, odd != 0 ? h[0] : h[1], 4);
        const std::uint32_t word = odd != 0 ? bf16_pair(other, h[1]) : bf16_pair(h[0], other);
        const int row = row_of_sums(first + i) + lane % 4 * 2 + odd;
        out[word_at(row, pair)] = there ? word : 0;
      }
    }
    copies_see_shared();
    barrier_of_first(kWorkersBarrier, kWorkers * 32);
    const int row = piece.row + half * kUnitRows;
    if (threadIdx.x == 0 && row < task.rows) {
      auto* to = static_cast<unsigned char*>(wide.to.data);
      to += unit_stage(row, piece.panel / kPanels, wide.to.stages) * kUnitStageBytes;
      store_bytes(to, out, kUnitStageBytes);
    }
  }
}

__device__ __forceinline__ void put_added(const Products& p, const ProductTask& task, int first_row,
                                          int panel, int line, Sums& sums) {
  const int last = task.rows - 1 - first_row;
  const int column = panel * kPanel + line;
  if (column >= task.w.n) return;
  const bool both = column + kHalf < task.w.n;
  const int further = both ? kHalf : 0;
  const std::int64_t at = first_row * p.ldy + column;
  if (p.bias != nullptr) add(sums, p.bias + column, p.bias + column + further, 0, last);
  const int own = own_last(last);
  if (p.accumulate) add(sums, task.y + at, task.y + at + further, p.ldy, own);
  if (p.residual != nullptr) add(sums, p.residual + at, p.residual + at + further, p.ldy, own);
  float* to = task.y + at;
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    const int row = row_of_sums(i);
    if (row > last) continue;
    to[row * p.ldy] = sum_of(sums, i, 0);
    if (both) to[row * p.ldy + kHalf] = sum_of(sums, i, 1);
  }
}

template <DType kType>
__device__ void work(const WideProducts& wide, const Ring<kType>& ring, int block, int warp,
                     int lane) {
  const Products& p = wide.params;
  int at = 0;
  for (int number = static_cast<int>(blockIdx.x); number < Pieces::count(wide);
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = Pieces::of(wide, number, block);
    if (piece.task == nullptr) continue;
    const ProductTask& task = *piece.task;
    const int stages = piece.stages;
    float sums[kRows / 2] = {};
    multiply(ring, at, stages, (task.w.k + 1) / 2, warp, lane, sums);
    at += stages;
    if (wide.to.data != nullptr) {
      // All of the block's warps come along.
      if (piece.panel * kPanel < task.w.n)
        put_operands(wide, task, piece, reinterpret_cast<std::uint32_t*>(ring.more()), warp, lane,
                     sums);
      continue;
    }
    const int panel = piece.panel + warp / kGroupWarps;
    if (panel * kPanel >= task.w.n) continue;
    const int line = warp % kGroupWarps * 8 + lane / 4;
    const int first_row = piece.row + lane % 4 * 2;
    if (first_row >= task.rows) continue;
    if (p.swiglu) {
      put_gated(p, task, first_row, panel, line, sums);
    } else {
      put_added(p, task, first_row, panel, line, sums);
    }
  }
  if (threadIdx.x == 0) stores_are_done();
}

template <DType kType>
__global__ void __launch_bounds__(paired::kThreads, 1) paired_kernel(const WideProducts wide) {
  follow_previous_kernel();
  const auto ring = Ring<kType>::make();
  paired::work_in_pairs<Pieces>(
      wide, ring, [&](int block, int warp, int lane) { work(wide, ring, block, warp, lane); });
}

template <DType kType>
void launch_pairs(const WideProducts& wide, Stream stream) {
  paired::launch_pairs(paired_kernel<kType>, wide, Pieces::count(wide), Ring<kType>::kSharedBytes,
                       stream);
}

}  // namespace

void paired_products(const WideProducts& wide, Stream stream) {
  by_weights(wide.dtype, [&]<DType kType>() { launch_pairs<kType>(wide, stream); });
}

}  // namespace dsm::kernels::cuda
