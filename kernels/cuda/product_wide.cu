// The matrix product for many rows, on tensor cores that take one side from shared memory (wgmma).
//
// It is computed with its sides turned: 64 columns of the weights are the lines of operand A, rows
// are operand B. Of a packed panel in BF16 8 bytes are two columns of a pair of inputs, which are
// registers of A, for lines g and g + 8; of other types they are made of what is there
// (stage_weights.h). A stage, 64 inputs of the block's rows and of its four panels, is a few
// contiguous pieces of memory: one warp copies them to shared memory, some stages ahead, and two
// warpgroups with 128 columns each take them from there, rows as operands and weights to registers.
//
// Which input a slot of the operands stands for is free as long as both sides agree. Here a lane's
// pairs of a stage are 8 neighbours, so that the four lanes of a column read four pieces, and these
// are laid out on different banks. Rows are rounded to BF16 and brought into that order once for
// all panels (pack_kernel).
//
// Sums stay in registers through all inputs; where blocks would be too few, each takes a part of
// them.
#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/product_stage.cuh"
#include "kernels/cuda/product_wide.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kWarps = 8;  // two warpgroups
constexpr int kThreads = kWarps * 32;
constexpr int kWarpColumns = 32;

template <DType kType, int kRows>
struct Wide {
  using Layout = StageLayout<kType>;
  // Rows, then panels, then their scales. Rows are aligned to 1,024 bytes.
  static constexpr int kRowsBytes = kRows * kStageRowBytes;
  static constexpr int kScalesAt = kRowsBytes + kWidePanels * Layout::kPanelBytes;
  static constexpr int kStageBytes =
      static_cast<int>(round_up(kScalesAt + kWidePanels * Layout::kScaleBytes, 1024));
  // Stages in shared memory, of which one is read, the one before may still be, and the others are
  // on their way: of weights in BF16 96 KiB, or with 128 rows 64, of 18 that an H100's bandwidth
  // times its latency asks for; of INT4, whose stages are a quarter, 48 and 32.
  static constexpr int kRing = kType == DType::kBF16 ? (kRows == 64 ? 5 : 4) : kRows == 64 ? 8 : 6;
  static constexpr int kAhead = kRing - 2;
  // With a barrier for each stage, and what aligns them.
  static constexpr int kSharedBytes = kRing * (kStageBytes + 8) + 1024;
  static_assert(kSharedBytes <= kMostHopperBytes);
  // Sums of 32 rows of a warp on their way out, by row; 4 keep lanes on different banks.
  static constexpr int kOutRows = 32;
  static constexpr int kOutStride = kWarpColumns + 4;
  static_assert(kWarps * kOutRows * kOutStride * 4 <= kRing * kStageBytes);
};

// What a thread block works on.
struct Block {
  const unsigned char* rows;  // [stages] of its part, kRowsBytes each
  const unsigned char* weights;
  const float* scales;  // of the block's first panel
  std::int64_t panel_bytes;
  int panels;
  int begin;  // its part's first stage
  int count;
  int lines;        // of a panel
  int pairs;        // of inputs, of the matrix
  int splits;       // blocks of scales
  int scale_phase;  // as PackedMatrix's
};

// Shared memory: a ring of stages.
template <DType kType, int kRows>
struct Ring {
  using Shape = Wide<kType, kRows>;
  unsigned char* stages;
  std::uint64_t* barriers;

  static __device__ __forceinline__ Ring make() {
    auto* at = dynamic_shared<unsigned char>();
    at += (1024 - reinterpret_cast<std::uintptr_t>(at) % 1024) % 1024;
    return {at, reinterpret_cast<std::uint64_t*>(at + Shape::kRing * Shape::kStageBytes)};
  }
  __device__ __forceinline__ unsigned char* stage(int i) const {
    return stages + i % Shape::kRing * Shape::kStageBytes;
  }
  __device__ __forceinline__ std::uint64_t* barrier(int i) const {
    return barriers + i % Shape::kRing;
  }
  static __device__ __forceinline__ int turn(int i) { return i / Shape::kRing; }
};

// Starts a warp's copies of the part's stage number i: some of the rows, half of a panel, and with
// the first half the panel's scales. kUsed: so many rows are copied and multiplied.
template <DType kType, int kRows, int kUsed>
__device__ __forceinline__ void ask(const Block& block, const Ring<kType, kRows>& ring, int warp,
                                    int i) {
  using Shape = Wide<kType, kRows>;
  using Layout = StageLayout<kType>;
  if (i >= block.count) return;
  constexpr int kBytes = kUsed * kStageRowBytes / kWarps;
  constexpr int kCopies = kWidePanels * kPieces / kWarps;
  const int first = (block.begin + i) * Layout::kStageLines;
  unsigned char* to = ring.stage(i);
  std::uint64_t* barrier = ring.barrier(i);
  const int panel = warp / 2;
  const unsigned char* from = block.weights + panel * block.panel_bytes;
  const bool scaled = Layout::kScaled && warp % 2 == 0 && panel < block.panels;
  int lines[kCopies];
  int expected = kBytes + (scaled ? Layout::kScaleBytes : 0);
#pragma unroll
  for (int c = 0; c < kCopies; ++c) {
    lines[c] = panel >= block.panels
                   ? 0
                   : Layout::lines_of_piece(block.lines - first, warp % 2 * kCopies + c);
    expected += lines[c] * Layout::kLineBytes;
  }
  copies_expect(barrier, expected);
  copy_bytes(to + warp * kBytes,
             block.rows + static_cast<std::int64_t>(i) * Shape::kRowsBytes + warp * kBytes, kBytes,
             barrier);
#pragma unroll
  for (int c = 0; c < kCopies; ++c) {
    const int piece = warp % 2 * kCopies + c;
    if (lines[c] == 0) continue;
    copy_bytes(
        to + Shape::kRowsBytes + panel * Layout::kPanelBytes + piece * Layout::kPieceBytes,
        from + static_cast<std::int64_t>(first + piece * Layout::kPieceLines) * Layout::kLineBytes,
        lines[c] * Layout::kLineBytes, barrier);
  }
  if (scaled) {
    const int split = (block.scale_phase + (block.begin + i) * kWideInputs) / kScaleBlock;
    copy_bytes(to + Shape::kScalesAt + panel * Layout::kScaleBytes,
               block.scales + static_cast<std::int64_t>(panel * block.splits + split) * kPanel,
               Layout::kScaleBytes, barrier);
  }
}

// A lane's weights of a stage: operands A of a step's two products, the panel's halves.
struct StageWeights {
  std::uint32_t v[kStageSteps][2][4];
};

// `from`: the lane's piece, at its first column; `scales`: that column's. Pairs from `left` on are
// not there.
template <DType kType>
__device__ __forceinline__ void load_stage(const unsigned char* from, const float* scales, int left,
                                           StageWeights& to) {
  constexpr int kHalf = kPanel / 2;
  const PieceColumns<kType, 2> columns[2] = {
      {from, scales}, {from + kHalf * StageLayout<kType>::kColumnBytes, scales + kHalf}};
#pragma unroll
  for (int step = 0; step < kStageSteps; ++step) {
#pragma unroll
    for (int further = 0; further < 2; ++further) {
      const int pair = step * 2 + further;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const LaneWords<2> two = columns[half].pair(pair);
        to.v[step][half][further * 2] = pair < left ? two.v[0] : 0;
        to.v[step][half][further * 2 + 1] = pair < left ? two.v[1] : 0;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) wgmma_ready(to.v[step][half]);
  }
}

// A warp's share of its warpgroup's work: sums of its panels' halves, in all its rows.
template <DType kType, int kRows, int kUsed>
__device__ __forceinline__ void multiply_stages(const Block& block, const Ring<kType, kRows>& ring,
                                                int warp, int lane, float (&sums)[2][kUsed / 2]) {
  using Shape = Wide<kType, kRows>;
  using Layout = StageLayout<kType>;
  // A panel past the last one is computed as that, for nobody.
  const int panel = warp / 2 < block.panels ? warp / 2 : block.panels - 1;
  const int column = warp % 2 * 16 + lane / 4 * 2;
  const int weights = Shape::kRowsBytes + panel * Layout::kPanelBytes +
                      lane % 4 * Layout::kPieceBytes + column * Layout::kColumnBytes;
  const int scales = Shape::kScalesAt + panel * Layout::kScaleBytes + column * 4;
  StageWeights held[2];
  const auto take = [&](int i, StageWeights& to) {
    copies_wait(ring.barrier(i), ring.turn(i));
    const unsigned char* from = ring.stage(i);
    load_stage<kType>(from + weights, reinterpret_cast<const float*>(from + scales),
                      block.pairs - (block.begin + i) * kStagePairs - lane % 4 * kPiecePairs, to);
  };
  if (warp == 0 && lane == 0) {
    for (int i = 0; i < Shape::kRing; ++i) copies_begin(ring.barrier(i), kWarps);
  }
  __syncthreads();
  if (lane == 0) {
    for (int i = 0; i < Shape::kAhead; ++i) ask<kType, kRows, kUsed>(block, ring, warp, i);
  }
  __syncthreads();  // as in the loop, one comes between starting copies and waiting for them
  take(0, held[0]);
  for (int first = 0; first < block.count; first += 2) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int i = first + b;
      __syncthreads();  // stage i - 2 may be overwritten
      const SharedRows rows = shared_rows(ring.stage(i));
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kStageSteps; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          wgmma_bf16(sums[half], held[b].v[step][half], rows, step);
        }
      }
      wgmma_commit();
      if (lane == 0) ask<kType, kRows, kUsed>(block, ring, warp, i + Shape::kAhead);
      __syncwarp();
      wgmma_wait<1>();  // so the rows and registers of the stage before are free
      if (i + 1 >= block.count) break;
      take(i + 1, held[1 - b]);
    }
  }
  wgmma_wait<0>();
  wgmma_done(sums[0]);
  wgmma_done(sums[1]);
  __syncthreads();  // nobody reads any stage
}

// The sums of a warp's 32 columns, 16 of either half of a panel: to shared memory as rows, then on.
// A gate is in the same warp as what it gates.
template <DType kType, int kRows, int kUsed>
__device__ __forceinline__ void put_sums(const Products& p, const ProductTask& task, int first_row,
                                         int first_panel, int warp, int lane, float* out,
                                         const float (&sums)[2][kUsed / 2]) {
  using Shape = Wide<kType, kRows>;
  const int panel = first_panel + warp / 2;
  if (panel * kPanel >= task.w.n) return;  // the whole warp does
  // What it reads there: a row's columns are 8 neighbours'.
  const int column = warp % 2 * 16 + lane % 8 / 4 * (kPanel / 2) + lane % 4 * 4;
#pragma unroll
  for (int chunk = 0; chunk < kUsed / Shape::kOutRows; ++chunk) {
    __syncwarp();  // what was there has been read
#pragma unroll
    for (int j = 0; j < Shape::kOutRows / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = (chunk * (Shape::kOutRows / 8) + j) * 4 + i;
        float* to = out + (8 * j + lane % 4 * 2 + i) * Shape::kOutStride + lane / 4 * 2;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          *reinterpret_cast<float2*>(to + half * 16) =
              make_float2(sums[half][at], sums[half][at + 2]);
        }
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int at = lane / 8; at < Shape::kOutRows; at += 4) {
      const int row = first_row + chunk * Shape::kOutRows + at;
      const Four<float> four = load_four(out + at * Shape::kOutStride + lane % 8 * 4);
      if (p.partial == nullptr) {
        finish<4>(p, task, row, panel, column, four.v);
      } else if (row < task.rows) {
        const std::int64_t line = blockIdx.z * p.rows + task.first_row + row;
        *reinterpret_cast<Four<float>*>(p.partial + line * p.ld_partial + panel * kPanel + column) =
            four;
      }
    }
  }
}

// Rows of a tile that are worth anything to the tensor cores: the upper half of a tile of 128 may
// have none, and then nothing of it is read.
__device__ __forceinline__ int used_rows(const Products& p, const ProductTask& task, int row) {
  return p.tile_rows == 128 && task.rows - row <= 64 ? 64 : p.tile_rows;
}

template <DType kType, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    wide_kernel(const WideProducts wide, const bool tile_by_tile) {
  using Shape = Wide<kType, kRows>;
  follow_previous_kernel();
  const Products& p = wide.params;
  const unsigned tile_number = tile_by_tile ? blockIdx.y : blockIdx.x;
  const ProductTile tile = p.tiles[tile_number];
  const ProductTask& task = p.tasks[tile.task];
  const PackedMatrix w = task.w;
  const int first_panel = static_cast<int>(tile_by_tile ? blockIdx.x : blockIdx.y) * kWidePanels;
  if (tile.row >= task.rows) return;        // the whole thread block does
  if (first_panel * kPanel >= w.n) return;  // and here
  const WidePart part =
      wide_part(w, static_cast<int>(blockIdx.z), p.partial != nullptr ? p.spans : 1);
  if (part.begin == part.end) return;  // and here
  const int panels = (w.n + kPanel - 1) / kPanel - first_panel;
  using Layout = StageLayout<kType>;
  const int lines = Layout::lines_of(w);
  const std::int64_t panel_bytes = static_cast<std::int64_t>(lines) * Layout::kLineBytes;
  const std::int64_t first_stage =
      static_cast<std::int64_t>(tile_number) * wide.stages + part.begin;
  const Block block = {
      .rows = static_cast<const unsigned char*>(p.x_operands) + first_stage * Shape::kRowsBytes,
      .weights = static_cast<const unsigned char*>(w.data) + first_panel * panel_bytes,
      .scales = Layout::kScaled
                    ? w.scales + static_cast<std::int64_t>(first_panel) * splits_of(w) * kPanel
                    : nullptr,
      .panel_bytes = panel_bytes,
      .panels = panels < kWidePanels ? panels : kWidePanels,
      .begin = part.begin,
      .count = part.end - part.begin,
      .lines = lines,
      .pairs = (w.k + 1) / 2,
      .splits = Layout::kScaled ? splits_of(w) : 0,
      .scale_phase = w.scale_phase};
  const auto ring = Ring<kType, kRows>::make();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* out = reinterpret_cast<float*>(ring.stages) + warp * (Shape::kOutRows * Shape::kOutStride);
  const auto multiply = [&]<int kUsed>(std::integral_constant<int, kUsed>) {
    float sums[2][kUsed / 2] = {};
    multiply_stages<kType, kRows, kUsed>(block, ring, warp, lane, sums);
    put_sums<kType, kRows, kUsed>(p, task, tile.row, first_panel, warp, lane, out, sums);
  };
  if (kRows > 64 && used_rows(p, task, tile.row) <= 64) {  // the whole thread block does
    multiply(std::integral_constant<int, 64>{});
  } else {
    multiply(std::integral_constant<int, kRows>{});
  }
}

// A thread block rounds a tile's rows of one stage, a thread 16 bytes of each of its rows: the
// pairs of one step's lanes (load_stage). Of so many rows at a time all inputs are asked for first.
constexpr int kPackThreads = 256;
constexpr int kRowChunks = kStageRowBytes / 16;
constexpr int kPackRows = 4;
__global__ void __launch_bounds__(kPackThreads) pack_kernel(const WideProducts wide) {
  follow_previous_kernel();
  const Products& p = wide.params;
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const int stage = static_cast<int>(blockIdx.y);
  if (tile.row >= task.rows || stage >= wide_stages(task.w)) return;
  const int k = task.w.k;
  const int unit_rows = p.tile_rows < kUnitRows ? p.tile_rows : kUnitRows;
  const int first_unit = static_cast<int>(blockIdx.x) * (p.tile_rows / unit_rows);
  const auto chunk_of = [&](int in_tile, int c) {
    const std::int64_t unit = first_unit + in_tile / unit_rows;
    return static_cast<uint4*>(p.x_operands) +
           (unit * wide.stages + stage) * unit_rows * kRowChunks + chunk_at(in_tile % unit_rows, c);
  };
  constexpr int kApart = kPackThreads / kRowChunks;  // rows
  const int chunk = static_cast<int>(threadIdx.x) % kRowChunks;
  const int rows = used_rows(p, task, tile.row);
  const auto input_of = [&](int piece) {
    return (stage * kStagePairs + piece * kPiecePairs + chunk) * 2;
  };
  for (int first = static_cast<int>(threadIdx.x) / kRowChunks; first < rows;
       first += kPackRows * kApart) {
    const float* x[kPackRows];
#pragma unroll
    for (int i = 0; i < kPackRows; ++i) {
      const int row = tile.row + first + i * kApart;
      const int there = row < task.rows ? row : task.rows - 1;
      x[i] = task.x + (p.token != nullptr ? p.token[task.first_row + there] : there) * p.ldx;
    }
    float2 two[kPackRows][kPieces] = {};
#pragma unroll
    for (int i = 0; i < kPackRows; ++i) {
#pragma unroll
      for (int piece = 0; piece < kPieces; ++piece) {
        const int input = input_of(piece);
        if (p.wide_x && input + 1 < k) {
          two[i][piece] = *reinterpret_cast<const float2*>(x[i] + input);
        } else {
          if (input < k) two[i][piece].x = x[i][input];
          if (input + 1 < k) two[i][piece].y = x[i][input + 1];
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kPackRows; ++i) {
      const int in_tile = first + i * kApart;
      if (in_tile >= rows) break;
      std::uint32_t words[kPieces] = {};
      if (tile.row + in_tile < task.rows) {
#pragma unroll
        for (int piece = 0; piece < kPieces; ++piece) {
          words[piece] = bf16_pair(two[i][piece].x, two[i][piece].y);
        }
      }
      *chunk_of(in_tile, chunk) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}

template <DType kType, int kRows>
void launch_rows(const WideProducts& wide, Stream stream) {
  const Products& p = wide.params;
  const auto tiles = static_cast<unsigned>(p.tile_count);
  const auto columns = static_cast<unsigned>((p.panels + kWidePanels - 1) / kWidePanels);
  const bool by_tile = tile_by_tile(p.tile_count, p.panels);
  const dim3 grid(by_tile ? columns : tiles, by_tile ? tiles : columns,
                  static_cast<unsigned>(p.partial != nullptr ? p.spans : 1));
  launch_early(wide_kernel<kType, kRows>, grid, kThreads, Wide<kType, kRows>::kSharedBytes, stream,
               wide, by_tile);
}

template <DType kType>
void launch_type(const WideProducts& wide, Stream stream) {
  if (wide.params.tile_rows == 64) {
    launch_rows<kType, 64>(wide, stream);
  } else {
    launch_rows<kType, 128>(wide, stream);
  }
}

}  // namespace

void pack_wide_rows(const WideProducts& wide, Stream stream) {
  const dim3 grid(static_cast<unsigned>(wide.params.tile_count),
                  static_cast<unsigned>(wide.stages));
  launch_early(pack_kernel, grid, kPackThreads, 0, stream, wide);
}

void wide_products(const WideProducts& wide, Stream stream) {
  if (wide.params.tile_rows == kPairedRows) return paired_products(wide, stream);
  by_weights(wide.dtype, [&]<DType kType>() { launch_type<kType>(wide, stream); });
  if (wide.params.partial != nullptr) finish_products(wide.params, stream);
}

}  // namespace dsm::kernels::cuda
