// The matrix product for many rows with both sides in FP8, on tensor cores that take one side from
// shared memory (wgmma).
//
// As in product_wide.cu the sides are turned: the 64 columns of a panel are the lines of operand A,
// in registers, and rows are operand B. A stage is the 128 inputs that have one scale on either
// side (fp8_stages.h). Bulk copies bring it to shared memory, some stages ahead: rows, packed once
// for all panels, with their scales (pack_kernel), and two panels with theirs. Each of two
// warpgroups has one panel and all rows, 64 of them a product at a time.
//
// Tensor cores keep few bits of a sum in FP8, so each product begins at zero, and what it gives is
// multiplied by both scales and added up in FP32. There are two sets of registers for that: while
// one is added up the tensor cores fill the other.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/fp8_stage.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/product_wide_fp8.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kWarps = 8;  // two warpgroups
constexpr int kThreads = kWarps * 32;
constexpr int kChunks = kFp8StageInputs / 16;  // of a row
constexpr int kBlockBytes = kFp8BlockRows * kFp8StageInputs;
constexpr int kBlockSums = kFp8BlockRows / 2;  // of a lane
constexpr int kScalesBytes = kPanel * 4;
constexpr int kPanelBytes = kFp8Pieces * kFp8PieceBytes + kScalesBytes;

// What a thread block works on. It stands in shared memory, where registers are dear.
struct Block {
  const unsigned char* rows;  // [stages] of its part, kRowsBytes each
  const unsigned char* weights;
  std::int64_t panel_bytes;
  const float* scales;  // [panels][splits][64]
  int splits;
  int panels;
  int begin;  // its part's first stage
  int count;
  int inputs;  // of the matrix
};

template <int kBlocks>
struct Wide {
  // Rows and their scales, then panels. Rows are aligned to 1,024 bytes.
  static constexpr int kRows = kBlocks * kFp8BlockRows;
  static constexpr int kRowsBytes = wide_fp8_stage_bytes(kRows);
  static constexpr int kStageBytes =
      static_cast<int>(round_up(kRowsBytes + kWideFp8Panels * kPanelBytes, 1024));
  // Stages in shared memory, of which one is read, the one before may still be, and the others are
  // on their way: of weights 96 KiB with 64 rows, of 18 that an H100's bandwidth times its latency
  // asks for.
  static constexpr int kRing = kBlocks == 1 ? 8 : kBlocks == 2 ? 6 : 4;
  static constexpr int kAhead = kRing - 2;
  // With a barrier for each stage, what the block works on, and what aligns them.
  static constexpr int kSharedBytes =
      kRing * (kStageBytes + 8) + static_cast<int>(sizeof(Block)) + 1024;
  static_assert(kSharedBytes <= kMostHopperBytes);
  // A panel's sums on their way out, by row; 4 keep lanes on different banks.
  static constexpr int kOutStride = kPanel + 4;
  static_assert(kWideFp8Panels * kRows * kOutStride * 4 <= kRing * kStageBytes);
};

// Shared memory: a ring of stages.
template <int kBlocks>
struct Ring {
  unsigned char* stages;

  static __device__ __forceinline__ Ring make() {
    auto* at = dynamic_shared<unsigned char>();
    at += (1024 - reinterpret_cast<std::uintptr_t>(at) % 1024) % 1024;
    return {at};
  }
  __device__ __forceinline__ std::uint64_t* barriers() const {
    return reinterpret_cast<std::uint64_t*>(stages +
                                            Wide<kBlocks>::kRing * Wide<kBlocks>::kStageBytes);
  }
  __device__ __forceinline__ Block& block() const {
    return *reinterpret_cast<Block*>(barriers() + Wide<kBlocks>::kRing);
  }
  __device__ __forceinline__ unsigned char* stage(int i) const {
    return stages + i % Wide<kBlocks>::kRing * Wide<kBlocks>::kStageBytes;
  }
  __device__ __forceinline__ std::uint64_t* barrier(int i) const {
    return barriers() + i % Wide<kBlocks>::kRing;
  }
  static __device__ __forceinline__ int turn(int i) { return i / Wide<kBlocks>::kRing; }
};

// Starts a warp's copies of the part's stage number i: some of the rows, a piece of a panel.
template <int kBlocks>
__device__ __forceinline__ void ask(const Ring<kBlocks>& ring, int warp, int i) {
  const Block& block = ring.block();
  if (i >= block.count) return;
  using Shape = Wide<kBlocks>;
  constexpr int kBytes = Shape::kRowsBytes / kWarps;
  static_assert(kBytes % 16 == 0 && kWarps == kWideFp8Panels * kFp8Pieces);
  const int stage = block.begin + i;
  const int panel = warp / kFp8Pieces;
  const int piece = warp % kFp8Pieces;
  const bool there = panel < block.panels;
  const int first = stage * kFp8StageInputs + piece * kFp8PieceInputs;
  const int left = there ? block.inputs - first : 0;
  const int inputs = left < 0 ? 0 : left < kFp8PieceInputs ? left : kFp8PieceInputs;
  const bool scales = there && piece == 0;
  unsigned char* to = ring.stage(i);
  unsigned char* to_panel = to + Shape::kRowsBytes + panel * kPanelBytes;
  std::uint64_t* barrier = ring.barrier(i);
  copies_expect(barrier, kBytes + inputs * kPanel + (scales ? kScalesBytes : 0));
  copy_bytes(to + warp * kBytes,
             block.rows + static_cast<std::int64_t>(i) * Shape::kRowsBytes + warp * kBytes, kBytes,
             barrier);
  if (inputs > 0) {
    copy_bytes(to_panel + piece * kFp8PieceBytes,
               block.weights + panel * block.panel_bytes + std::int64_t{first} * kPanel,
               inputs * kPanel, barrier);
  }
  if (scales) {
    copy_bytes(to_panel + kFp8Pieces * kFp8PieceBytes,
               block.scales + (static_cast<std::int64_t>(panel) * block.splits + stage) * kPanel,
               kScalesBytes, barrier);
  }
}

// `from`: the lane's line (fp8_line).
__device__ __forceinline__ void load_stage(const unsigned char* from, StageWeights& to) {
#pragma unroll
  for (int step = 0; step < kFp8StageSteps; ++step) {
    load_transposed(from + step * kFp8StepBytes, to.v[step]);
  }
}
// `left`: inputs of the lane's piece that are there.
__device__ __forceinline__ void make_operands(int left, StageWeights& weights) {
#pragma unroll
  for (int step = 0; step < kFp8StageSteps; ++step) {
    if (left < kFp8PieceInputs) clear_fp8_inputs(step, left, weights.v[step]);
    fp8_operand_of(weights.v[step]);
    wgmma_ready(weights.v[step]);
  }
}

// Adds what a product of 64 rows has given, times the scales of rows and columns; the lane's are
// four neighbours of every 16, and two.
__device__ __forceinline__ void add_scaled(const float (&product)[kBlockSums], const float* of_rows,
                                           const float* of_columns, float (&sums)[kBlockSums]) {
  const float2 stored = *reinterpret_cast<const float2*>(of_columns);
  const float columns[2] = {stored.x * 0x1p-120F, stored.y * 0x1p-120F};  // params.h: times 2^120
#pragma unroll
  for (int j = 0; j < kBlockSums / 4; j += 2) {
    const Four<float> rows = load_four(of_rows + j * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float scaled = product[4 * j + i] * rows.v[i / 4 * 2 + i % 2];
      sums[4 * j + i] = fmaf(scaled, columns[i / 2 % 2], sums[4 * j + i]);
    }
  }
}

// A warp's share of its warpgroup's work: sums of 16 of its panel's columns, in all rows.
//
// A warpgroup's tensor cores have nothing of its own to do while it ends a stage. So the second
// warpgroup is half a stage behind: they meet where the first begins a stage and the second is in
// the middle of the one before. Then nobody needs what is two stages before the first's.
template <int kBlocks>
__device__ __forceinline__ void multiply_stages(const Ring<kBlocks>& ring, int warp, int lane,
                                                float (&sums)[kBlocks][kBlockSums]) {
  using Shape = Wide<kBlocks>;
  const bool is_first = warp < kWarps / 2;
  const int count = ring.block().count;
  // A panel past the last one is computed as that, for nobody.
  const int panel = is_first || ring.block().panels == 1 ? 0 : 1;
  const int panel_at = Shape::kRowsBytes + panel * kPanelBytes;
  const int weights_at = panel_at + fp8_line(warp, lane);
  const int columns_at =
      panel_at + kFp8Pieces * kFp8PieceBytes + (warp % 4 * 16 + lane / 4 * 2) * 4;
  const int rows_at = Shape::kRows * kFp8StageInputs + lane % 4 * 16;
  const int left_of_part = ring.block().inputs - ring.block().begin * kFp8StageInputs;
  StageWeights weights;
  const auto load = [&](int i) {
    copies_wait(ring.barrier(i), ring.turn(i));
    load_stage(ring.stage(i) + weights_at, weights);
  };
  const auto make = [&](int i) {
    make_operands(left_of_part - i * kFp8StageInputs - lane % 4 * kFp8PieceInputs, weights);
  };
  float products[2][kBlockSums] = {};
  const auto add = [&](int b, const unsigned char* stage) {
    wgmma_done(products[b % 2]);
    add_scaled(products[b % 2], reinterpret_cast<const float*>(stage + rows_at) + b * kFp8BlockRows,
               reinterpret_cast<const float*>(stage + columns_at), sums[b]);
  };
  // Before stage i of the first warpgroup.
  const auto meet = [&](int i) {
    __syncthreads();  // which the warpgroups reach at two places of the code
    if (lane == 0) ask(ring, warp, i + Shape::kAhead);
    __syncwarp();
  };
  if (lane == 0) {
    for (int i = 0; i < Shape::kAhead; ++i) ask(ring, warp, i);
  }
  __syncthreads();  // as in the loop, one comes between starting copies and waiting for them
  load(0);
  make(0);
  if (!is_first) meet(0);
  for (int i = 0; i < count; ++i) {
    const unsigned char* stage = ring.stage(i);
    const bool more = i + 1 < count;
    if (is_first) meet(i);
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      start_product(weights, stage + b * kBlockBytes, products[b % 2]);
      if (b == kBlocks / 2 && !is_first && more) meet(i + 1);
      if (b > 0) {
        wgmma_wait<1>();
        add(b - 1, stage);
      }
    }
    wgmma_wait<0>();  // so the operands are free
    if (more) load(i + 1);
    add(kBlocks - 1, stage);
    if (more) make(i + 1);
  }
}

// The sums of a panel's columns: to shared memory as rows, then on. `out` is the warpgroup's.
template <int kBlocks>
__device__ __forceinline__ void put_sums(const Products& p, int warp, int lane, float* out,
                                         const float (&sums)[kBlocks][kBlockSums]) {
  constexpr int kStride = Wide<kBlocks>::kOutStride;
  __syncthreads();  // nobody reads any stage
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
    for (int j = 0; j < kBlockSums / 4; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = b * kFp8BlockRows + 8 * j + lane % 4 * 2 + i;
        *reinterpret_cast<float2*>(out + row * kStride + warp % 4 * 16 + lane / 4 * 2) =
            make_float2(sums[b][4 * j + i], sums[b][4 * j + i + 2]);
      }
    }
  }
  __syncthreads();
  const ProductTile tile = p.tiles[blockIdx.x];  // again, so that it need not be kept
  const ProductTask& task = p.tasks[tile.task];
  const int panel = static_cast<int>(blockIdx.y) * kWideFp8Panels + warp / 4;
  if (panel * kPanel >= task.w.n) return;  // the whole warp does
  const int column = lane % 16 * 4;
  const bool fours = by_fours(p, task);
#pragma unroll 2
  for (int at = warp % 4 * 2 + lane / 16; at < Wide<kBlocks>::kRows; at += 8) {
    const int row = tile.row + at;
    const Four<float> four = load_four(out + at * kStride + column);
    if (p.partial != nullptr) {
      if (row >= task.rows) continue;
      const std::int64_t line = blockIdx.z * p.rows + task.first_row + row;
      *reinterpret_cast<Four<float>*>(p.partial + line * p.ld_partial + panel * kPanel + column) =
          four;
    } else if (fours) {
      finish_four(p, task, row, panel, column, four);
    } else {
      finish(p, task, row, panel, column, four.v);
    }
  }
}

template <int kBlocks>
__global__ void __launch_bounds__(kThreads, 1) wide_fp8_kernel(const WideFp8Products wide) {
  using Shape = Wide<kBlocks>;
  follow_previous_kernel();
  const Products& p = wide.params;
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const PackedMatrix w = task.w;
  const int first_panel = static_cast<int>(blockIdx.y) * kWideFp8Panels;
  if (tile.row >= task.rows) return;        // the whole thread block does
  if (first_panel * kPanel >= w.n) return;  // and here
  const WidePart part =
      wide_fp8_part(w, static_cast<int>(blockIdx.z), p.partial != nullptr ? p.spans : 1);
  if (part.begin == part.end) return;  // and here
  const int panels = (w.n + kPanel - 1) / kPanel - first_panel;
  const std::int64_t panel_bytes = std::int64_t{w.k} * kPanel;
  const std::int64_t first_stage = static_cast<std::int64_t>(blockIdx.x) * wide.stages + part.begin;
  const auto ring = Ring<kBlocks>::make();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    ring.block() = {
        .rows = static_cast<const unsigned char*>(p.x_operands) + first_stage * Shape::kRowsBytes,
        .weights = static_cast<const unsigned char*>(w.data) + first_panel * panel_bytes,
        .panel_bytes = panel_bytes,
        .scales = w.scales + static_cast<std::int64_t>(first_panel) * splits_of(w) * kPanel,
        .splits = splits_of(w),
        .panels = panels < kWideFp8Panels ? panels : kWideFp8Panels,
        .begin = part.begin,
        .count = part.end - part.begin,
        .inputs = w.k};
    for (int i = 0; i < Shape::kRing; ++i) copies_begin(ring.barrier(i), kWarps);
  }
  __syncthreads();
  float sums[kBlocks][kBlockSums] = {};
  multiply_stages<kBlocks>(ring, warp, lane, sums);
  put_sums<kBlocks>(
      p, warp, lane,
      reinterpret_cast<float*>(ring.stages) + warp / 4 * (Shape::kRows * Shape::kOutStride), sums);
}

// A thread block lays out a tile's rows of one stage, a thread 16 bytes of a row, and then scales.
constexpr int kPackThreads = 256;
__global__ void __launch_bounds__(kPackThreads) pack_kernel(const WideFp8Products wide) {
  follow_previous_kernel();
  const Products& p = wide.params;
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const int stage = static_cast<int>(blockIdx.y);
  if (tile.row >= task.rows || stage >= splits_of(task.w)) return;
  const Fp8Rows& x = task.x_fp8;
  // The row of x, or none.
  const auto row_of_x = [&](int in_tile) -> std::int64_t {
    const int row = tile.row + in_tile;
    if (row >= task.rows) return -1;
    return p.token != nullptr ? p.token[task.first_row + row] : row;
  };
  auto* to = static_cast<unsigned char*>(p.x_operands) +
             (static_cast<std::int64_t>(blockIdx.x) * wide.stages + stage) *
                 wide_fp8_stage_bytes(p.tile_rows);
  for (int at = static_cast<int>(threadIdx.x); at < p.tile_rows * kChunks; at += kPackThreads) {
    const int in_tile = at / kChunks;
    const int chunk = at % kChunks;
    const std::int64_t row = row_of_x(in_tile);
    std::uint32_t words[4] = {};
    if (row >= 0) {
      const std::uint8_t* from = x.values + row * x.ld + stage * kFp8StageInputs;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        words[i] = *reinterpret_cast<const std::uint32_t*>(from + fp8_input(chunk * 16 + i * 4));
      }
    }
    reinterpret_cast<uint4*>(to)[in_tile * kChunks + (chunk ^ in_tile % 8)] =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
  auto* scales = reinterpret_cast<float*>(to + p.tile_rows * kFp8StageInputs);
  for (int at = static_cast<int>(threadIdx.x); at < p.tile_rows; at += kPackThreads) {
    const std::int64_t row = row_of_x(at);
    scales[fp8_scale_place(at)] = row >= 0 ? x.scales[row * (x.ld / kScaleBlock) + stage] : 0.0F;
  }
}

template <int kBlocks>
void launch_rows(const WideFp8Products& wide, Stream stream) {
  const Products& p = wide.params;
  const dim3 grid(static_cast<unsigned>(p.tile_count),
                  static_cast<unsigned>((p.panels + kWideFp8Panels - 1) / kWideFp8Panels),
                  static_cast<unsigned>(p.partial != nullptr ? p.spans : 1));
  launch_early(wide_fp8_kernel<kBlocks>, grid, kThreads, Wide<kBlocks>::kSharedBytes, stream, wide);
}

}  // namespace

void pack_wide_fp8_rows(const WideFp8Products& wide, Stream stream) {
  const dim3 grid(static_cast<unsigned>(wide.params.tile_count),
                  static_cast<unsigned>(wide.stages));
  launch_early(pack_kernel, grid, kPackThreads, 0, stream, wide);
}

void wide_fp8_products(const WideFp8Products& wide, Stream stream) {
  if (wide.pairs) return paired_fp8_products(wide, stream);
  if (wide.params.tile_rows == 64) {
    launch_rows<1>(wide, stream);
  } else if (wide.params.tile_rows == 128) {
    launch_rows<2>(wide, stream);
  } else {
    launch_rows<4>(wide, stream);
  }
  if (wide.params.partial != nullptr) finish_products(wide.params, stream);
}

}  // namespace dsm::kernels::cuda
