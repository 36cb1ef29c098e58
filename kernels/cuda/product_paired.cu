// The matrix product for so many rows that tensor cores are what limits it: as product_wide.cu, its
// sides turned and rows and weights laid out alike, by pairs of thread blocks on processors next to
// each other.
//
// A block has 256 rows and two panels, 128 columns. Those of a pair have the same rows, of which
// each reads one half from the second cache for both: for as much arithmetic as the tensor cores do
// in 1,024 cycles a processor reads 32 KiB there instead of the 48 that a block alone would.
//
// Four threads, each of a warp of its own, start copies, as far ahead as the ring of stages
// reaches, also while the others write their sums out; two warpgroups multiply, a panel each. Of a
// stage two barriers in shared memory say that it is there, and that all warps of both blocks have
// read it. Blocks stay on their processors and take one piece of the work after the other.
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/paired_rows.cuh"
#include "kernels/cuda/product_stage.cuh"
#include "kernels/cuda/product_wide.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kRows = kPairedRows;
constexpr int kPanels = kPairedPanels / kPairedBlocks;  // of a block, one for each warpgroup
constexpr int kGroupWarps = 4;
constexpr int kWorkers = kPanels * kGroupWarps;  // warps that multiply
// And a warpgroup that copies, a thread of each warp.
constexpr int kThreads = (kWorkers + kGroupWarps) * 32;
constexpr int kWorkerRegisters = 232;
constexpr int kCopyRegisters = 40;
static_assert(kWorkers * kWorkerRegisters + kGroupWarps * kCopyRegisters <= 65536 / 32);
constexpr int kRowsBytes = kRows * kStageRowBytes;
static_assert(kRows == kPairedBlocks * kUnitRows);
constexpr int kRing = 4;
constexpr int kHalf = kPanel / 2;

// By the type of the weights.
template <DType kType>
struct Paired {
  using Layout = StageLayout<kType>;
  // Rows, then panels, then their scales. Rows are aligned to 1,024 bytes.
  static constexpr int kScalesAt = kRowsBytes + kPanels * Layout::kPanelBytes;
  static constexpr int kStageBytes =
      static_cast<int>(round_up(kScalesAt + kPanels * Layout::kScaleBytes, 1024));
  // And a unit's stage of what goes to the next product.
  static constexpr int kSharedBytes = kRing * (kStageBytes + 16) + kUnitStageBytes + 1024;
  static_assert(kSharedBytes <= kMostHopperBytes);
};

// A pair's piece of the work, and what a block of it reads.
struct Piece {
  const ProductTask* task;
  int row;
  int panel;                  // the block's first
  const unsigned char* rows;  // what the block copies of them: [stages], kUnitStageBytes each
};

// Pieces are numbered by tile, then by columns: pairs that run at the same time read the same
// weights, or the same rows.
DSM_HOST_DEVICE int pieces_of(const Products& p) {
  return p.tile_count * ((p.panels + kPairedPanels - 1) / kPairedPanels);
}
// A piece that is not there has no task.
__device__ __forceinline__ Piece piece_of(const WideProducts& wide, int number, int block) {
  const Products& p = wide.params;
  const int tile_number = number % p.tile_count;
  const ProductTile tile = p.tiles[tile_number];
  const ProductTask* task = p.tasks + tile.task;
  const int first = number / p.tile_count * kPairedPanels;
  const bool there = tile.row < task->rows && first * kPanel < task->w.n;
  const std::int64_t unit = std::int64_t{tile_number} * kPairedBlocks + block;
  return {there ? task : nullptr, tile.row, first + block * kPanels,
          static_cast<const unsigned char*>(p.x_operands) + unit * wide.stages * kUnitStageBytes};
}

// Panel `number` of the weights, or their last: a panel past it is computed as that, for nobody.
__device__ __forceinline__ int panel_of(const PackedMatrix& w, int number) {
  const int last = (w.n + kPanel - 1) / kPanel - 1;
  return number < last ? number : last;
}
template <DType kType>
__device__ __forceinline__ const unsigned char* weights_of(const PackedMatrix& w, int number) {
  using Layout = StageLayout<kType>;
  const auto* data = static_cast<const unsigned char*>(w.data);
  return data +
         static_cast<std::int64_t>(panel_of(w, number)) * Layout::lines_of(w) * Layout::kLineBytes;
}

// Stages are numbered through all pieces of a block.
template <DType kType>
struct Ring {
  static constexpr int kStageBytes = Paired<kType>::kStageBytes;
  unsigned char* stages;
  std::uint64_t* filled;
  std::uint64_t* read;
  std::uint32_t* out;  // [kUnitRows][kRowWords]

  static __device__ __forceinline__ Ring make() {
    auto* at = dynamic_shared<unsigned char>();
    at += (1024 - reinterpret_cast<std::uintptr_t>(at) % 1024) % 1024;
    auto* out = reinterpret_cast<std::uint32_t*>(at + kRing * kStageBytes);
    auto* barriers = reinterpret_cast<std::uint64_t*>(out + kUnitRows * kRowWords);
    return {at, barriers, barriers + kRing, out};
  }
  __device__ __forceinline__ unsigned char* stage(int i) const {
    return stages + i % kRing * kStageBytes;
  }
  static __device__ __forceinline__ int turn(int i) { return i / kRing; }
};

// By one thread of each warp that copies: a quarter of the block's share of the rows, for both
// blocks, and of every panel the piece of that number; the first ones also a panel's scales.
static_assert(kPieces == kGroupWarps && kPanels <= kPieces);
template <DType kType>
__device__ void fill(const WideProducts& wide, const Ring<kType>& ring, int block,
                     int piece_number) {
  using Layout = StageLayout<kType>;
  constexpr int kShare = kUnitStageBytes / kPieces;
  const int rows_at = block * kUnitStageBytes + piece_number * kShare;
  int at = 0;
  for (int number = static_cast<int>(blockIdx.x); number < pieces_of(wide.params);
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = piece_of(wide, number, block);
    if (piece.task == nullptr) continue;
    const PackedMatrix& w = piece.task->w;
    const int stages = wide_stages(w);
    const unsigned char* rows = piece.rows + piece_number * kShare;
    const unsigned char* weights[kPanels];
    int left = Layout::lines_of(w);
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      weights[i] = weights_of<kType>(w, piece.panel + i) +
                   piece_number * Layout::kPieceLines * Layout::kLineBytes;
    }
    const bool scaled = Layout::kScaled && piece_number < kPanels;
    const float* scales = nullptr;
    if (scaled) {
      scales = w.scales + static_cast<std::int64_t>(panel_of(w, piece.panel + piece_number)) *
                              splits_of(w) * kPanel;
    }
    for (int stage = 0; stage < stages; ++stage, ++at) {
      unsigned char* to = ring.stage(at);
      std::uint64_t* filled = ring.filled + at % kRing;
      const int bytes = Layout::lines_of_piece(left, piece_number) * Layout::kLineBytes;
      const int scale_bytes = scaled ? Layout::kScaleBytes : 0;
      if (at >= kRing) arrivals_wait(ring.read + at % kRing, Ring<kType>::turn(at) - 1);
      copies_expect(filled, kPairedBlocks * kShare + kPanels * bytes + scale_bytes);
      copy_bytes_to_cluster(to + rows_at, rows, kShare, filled, kPairedBlocks);
      rows += kUnitStageBytes;
      if (scaled) {
        copy_bytes(to + Paired<kType>::kScalesAt + piece_number * Layout::kScaleBytes,
                   scales + static_cast<std::int64_t>(scales_of_stage(w, stage)) * kPanel,
                   scale_bytes, filled);
      }
      to += kRowsBytes + piece_number * Layout::kPieceBytes;
#pragma unroll
      for (int i = 0; i < kPanels; ++i) {
        if (bytes > 0) copy_bytes(to + i * Layout::kPanelBytes, weights[i], bytes, filled);
        weights[i] += Layout::kStageLines * Layout::kLineBytes;
      }
      left -= Layout::kStageLines;
    }
  }
}

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
      Paired<kType>::kScalesAt + warp / kGroupWarps * Layout::kScaleBytes + column * 4;
  StageWeights held[2];
  const auto take = [&](int stage, StageWeights& to) {
    copies_wait(ring.filled + (at + stage) % kRing, Ring<kType>::turn(at + stage));
    const unsigned char* from = ring.stage(at + stage);
    load_stage<kType>(from + weights, reinterpret_cast<const float*>(from + scales),
                      pairs - stage * kStagePairs - lane % 4 * kPiecePairs, to);
  };
  // In both blocks: either copies into the other's stages. By one lane, to whom nothing but the
  // warp's barrier promises that the others have read their weights.
  const auto give_back = [&](int stage) {
    __syncwarp();
    if (lane < kPairedBlocks) arrive(ring.read + (at + stage) % kRing, lane);
  };
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
  for (int number = static_cast<int>(blockIdx.x); number < pieces_of(p);
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = piece_of(wide, number, block);
    if (piece.task == nullptr) continue;
    const ProductTask& task = *piece.task;
    const int stages = wide_stages(task.w);
    float sums[kRows / 2] = {};
    multiply(ring, at, stages, (task.w.k + 1) / 2, warp, lane, sums);
    at += stages;
    if (wide.to.data != nullptr) {
      // All of the block's warps come along.
      if (piece.panel * kPanel < task.w.n)
        put_operands(wide, task, piece, ring.out, warp, lane, sums);
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
__global__ void __launch_bounds__(kThreads, 1) paired_kernel(const WideProducts wide) {
  follow_previous_kernel();
  const int block = block_of_cluster();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto ring = Ring<kType>::make();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kRing; ++i) {
      copies_begin(ring.filled + i, kPieces);
      arrivals_begin(ring.read + i, kPairedBlocks * kWorkers);
    }
  }
  cluster_barrier();  // barriers have begun in both
  if (warp < kWorkers) {
    take_registers<kWorkerRegisters>();
    work(wide, ring, block, warp, lane);
  } else {
    leave_registers<kCopyRegisters>();
    if (lane == 0) fill(wide, ring, block, warp - kWorkers);
    __syncwarp();
  }
  cluster_barrier();  // the other one copies nothing here any more, nor comes to a barrier
}

template <DType kType>
void launch_pairs(const WideProducts& wide, Stream stream) {
  const Products& p = wide.params;
  const int pieces = pieces_of(p);
  const int pairs = wide.processors / kPairedBlocks;
  const dim3 grid(static_cast<unsigned>(pieces < pairs ? pieces : pairs), kPairedBlocks);
  launch_clusters(kPairedBlocks, paired_kernel<kType>, grid, kThreads, Paired<kType>::kSharedBytes,
                  stream, wide);
}

}  // namespace

void paired_products(const WideProducts& wide, Stream stream) {
  switch (wide.dtype) {
    case DType::kF8E4M3:
      return launch_pairs<DType::kF8E4M3>(wide, stream);
    case DType::kInt8:
      return launch_pairs<DType::kInt8>(wide, stream);
    case DType::kInt4:
      return launch_pairs<DType::kInt4>(wide, stream);
    default:
      return launch_pairs<DType::kBF16>(wide, stream);
  }
}

}  // namespace dsm::kernels::cuda
