// The matrix product for many rows in the deterministic mode, on tensor cores that take one side
// from shared memory (wgmma): the additions of product.cuh in their order, so that a row has the
// same bits as among few, if a tensor core adds up a step of 16 inputs alike by either instruction.
// Whether it does only a GPU can tell.
//
// A split of 128 inputs is one chain of products from zero, a step of 16 inputs after the other, of
// each first the rows' values and then their remainders, with every input in the slot that it has
// there (exact_stage.h). Its sum is multiplied by the columns' scales, if there are, and added to
// the span's in FP32, and spans' sums to the total, each in its order.
//
// As in product_paired.cu sides are turned and pairs of thread blocks share rows
// (paired_stages.cuh): what there is the other half of the rows here is their remainders. A
// warpgroup has 64 columns and 128 rows, 64 of them a chain at a time. Chains and spans' sums are
// in registers, totals in shared memory, where each thread comes to its own once in 1,024 inputs.
// While one chain is added up the tensor cores do the other, and while a warpgroup goes from one
// split to the next those of the other warpgroup, which begins half a split later.
#include <type_traits>

#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/paired_stages.cuh"
#include "kernels/cuda/product_exact.h"

namespace dsm::kernels::cuda {
namespace {

using paired::kGroupWarps;
using paired::kPanels;
using paired::kRowsBytes;
using paired::Piece;

static_assert(kExactTerms == kPairedBlocks);  // each copies a term

constexpr int kSplitStages = kSplitInputs / kWideInputs;
static_assert(kSplitStages == 2);
constexpr int kSpanStages = kSpanSplits * kSplitStages;
constexpr int kChunkRows = 64;  // of a chain
constexpr int kChunkSums = kChunkRows / 2;
constexpr int kChunkBytes = kChunkRows * kStageRowBytes;

// Totals of a warpgroup's panel by row; 4 keep lanes on different banks.
constexpr int kTotalStride = kPanel + 4;
constexpr int kTotalFloats = kExactRows * kTotalStride;
// And for each warpgroup a barrier at which its warps meet, and one at which the second waits for
// the first to be half a split ahead.
constexpr int kMoreBytes = kPanels * (kTotalFloats * 4 + 8) + 16;

template <DType kType>
using Ring = paired::Ring<ExactLayout<kType>, kType == DType::kInt4 ? 4 : 3, kMoreBytes>;

// Rows of a tile that are multiplied: one chunk of them, or both.
__device__ __forceinline__ int used_rows(const ProductTask& task, int first_row) {
  return task.rows - first_row <= kChunkRows ? kChunkRows : kExactRows;
}

// Pieces are numbered by tile, then by columns, then by parts of the spans: pairs that run at the
// same time read the same weights, or the same rows.
struct Pieces {
  static DSM_HOST_DEVICE int columns(const Products& p) {
    return (p.panels + kPairedPanels - 1) / kPairedPanels;
  }
  static DSM_HOST_DEVICE int count(const WideProducts& wide) {
    const Products& p = wide.params;
    return p.tile_count * columns(p) * ((p.spans + p.spans_each - 1) / p.spans_each);
  }
  static __device__ __forceinline__ Piece of(const WideProducts& wide, int number, int block) {
    const Products& p = wide.params;
    const int tile_number = number % p.tile_count;
    number /= p.tile_count;
    const int first_panel = number % columns(p) * kPairedPanels;
    const int first = number / columns(p) * p.spans_each * kSpanStages;
    const ProductTile tile = p.tiles[tile_number];
    const ProductTask* task = p.tasks + tile.task;
    const int all = wide_stages(task->w);
    const int left = all - first;
    const int most = p.spans_each * kSpanStages;
    const bool there = tile.row < task->rows && first_panel * kPanel < task->w.n && left > 0;
    const std::int64_t unit = std::int64_t{tile_number} * kExactTerms + block;
    return {there ? task : nullptr,
            tile.row,
            first_panel + block * kPanels,
            static_cast<const unsigned char*>(p.x_operands) +
                (unit * wide.stages + first) * kUnitStageBytes,
            first,
            left < most ? left : most};
  }
  static __device__ __forceinline__ int rows(const Piece& piece) {
    return used_rows(*piece.task, piece.row);
  }
};

// A lane's place in its warpgroup's panel: columns `column` and the next one, rows first_row + 8j
// and the next one.
struct Place {
  int panel;  // of the block
  int column;
  int first_row;

  static __device__ __forceinline__ Place of(int warp, int lane) {
    return {warp / kGroupWarps, warp % kGroupWarps * 16 + lane / 4 * 2, lane % 4 * 2};
  }
};

// A lane's totals of a chunk in shared memory, from its first row and column on: rows 8j and 8j +
// 1, two columns of each.
template <class Use>
__device__ __forceinline__ void for_each_total(float* first, const Use& use) {
#pragma unroll
  for (int j = 0; j < kChunkRows / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      use(*reinterpret_cast<float2*>(first + (8 * j + i) * kTotalStride), 4 * j + i);
    }
  }
}
// Minus zero and a sum is that sum.
__device__ __forceinline__ void clear_totals(float* first) {
  for_each_total(first, [](float2& total, int) { total = make_float2(-0.0F, -0.0F); });
}
__device__ __forceinline__ void add_to_totals(const float (&sums)[kChunkSums], float* first) {
  for_each_total(first, [&](float2& total, int at) {
    const float2 before = total;
    total = make_float2(before.x + sums[at], before.y + sums[at + 2]);
  });
}
// The same sums to memory, of the rows of which `left` are there.
__device__ __forceinline__ void put_span(const float (&sums)[kChunkSums], float* to,
                                         std::int64_t ld, int left) {
#pragma unroll
  for (int j = 0; j < kChunkRows / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = 4 * j + i;
      if (8 * j + i < left) {
        *reinterpret_cast<float2*>(to + i * ld) = make_float2(sums[at], sums[at + 2]);
      }
    }
    to += 8 * ld;
  }
}

// A warp's share of its warpgroup's work on a piece, whose first stage is number `at` of the
// ring's: put(sums, chunk, span) for each span of the piece. ahead() is called when the first of
// all splits is under way.
template <DType kType, int kChunks, class Put, class Ahead>
__device__ __forceinline__ void multiply(const Ring<kType>& ring, int at, int stages, int inputs,
                                         const Place& place, int lane, const Put& put,
                                         const Ahead& ahead) {
  using Layout = ExactLayout<kType>;
  const int panel = kRowsBytes + place.panel * Layout::kPanelBytes;
  const int scales =
      paired::Stage<Layout>::kScalesAt + place.panel * Layout::kScaleBytes + place.column * 4;
  const auto words = ExactLane<kType>::of(lane % 4, place.column);
  ExactWeights held[kSplitStages];
  float chains[kChunks][kChunkSums];
  float spans[kChunks][kChunkSums];
  float scale[2] = {1.0F, 1.0F};
  // Minus zero and a sum is that sum.
  const auto clear = [&](float(&sums)[kChunkSums]) {
#pragma unroll
    for (int i = 0; i < kChunkSums; ++i) sums[i] = -0.0F;
  };
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) clear(spans[chunk]);
  const auto take = [&](int stage, ExactWeights& to) {
    copies_wait(ring.filled + (at + stage) % Ring<kType>::kRing, Ring<kType>::turn(at + stage));
    load_exact(ring.stage(at + stage) + panel, words, inputs - stage * kWideInputs, to);
#pragma unroll
    for (int step = 0; step < kWideSteps; ++step) wgmma_ready(to.v[step]);
  };
  const auto start = [&](int chunk, int stage, ExactWeights& weights, auto begins) {
    const unsigned char* rows = ring.stage(at + stage) + chunk * kChunkBytes;
    const SharedRows terms[kExactTerms] = {shared_rows(rows), shared_rows(rows + kUnitStageBytes)};
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kWideSteps; ++step) {
#pragma unroll
      for (int term = 0; term < kExactTerms; ++term) {
        if (decltype(begins)::value && step == 0 && term == 0) {
          wgmma_bf16<false>(chains[chunk], weights.v[step], terms[term], step);
        } else {
          wgmma_bf16(chains[chunk], weights.v[step], terms[term], step);
        }
      }
    }
    wgmma_commit();
  };
  const auto end = [&](int chunk, int split) {
    wgmma_done(chains[chunk]);
#pragma unroll
    for (int i = 0; i < kChunkSums; ++i) {
      float sum = chains[chunk][i];
      if (Layout::kScaled) sum *= scale[i / 2 % 2];
      spans[chunk][i] += sum;
    }
    if (split % kSpanSplits != kSpanSplits - 1 && (split + 1) * kSplitStages < stages) return;
    put(spans[chunk], chunk, split / kSpanSplits);
    clear(spans[chunk]);
  };
  constexpr std::true_type kBegins;
  constexpr std::false_type kGoesOn;
  // Nothing is in flight from one split to the next, which the compiler could not follow.
  take(0, held[0]);
  for (int stage = 0; stage < stages; stage += kSplitStages) {
    const int split = stage / kSplitStages;
    int last = stage;
    start(0, stage, held[0], kBegins);
    if (kChunks == 2) start(1, stage, held[0], kBegins);
    if (stage + 1 < stages) {
      last = stage + 1;
      take(last, held[1]);
      start(0, last, held[1], kGoesOn);
      wgmma_wait<1>();
      ring.give_back(at + stage, lane);
      if (kChunks == 2) start(1, last, held[1], kGoesOn);
    }
    if (at + stage == 0) ahead();
    if (Layout::kScaled) {
      const auto* from = reinterpret_cast<const float*>(ring.stage(at + last) + scales);
      scale[0] = from[0] * kExactFactor<kType>;
      scale[1] = from[1] * kExactFactor<kType>;
    }
    if (last + 1 < stages) take(last + 1, held[0]);
    if (kChunks == 2) {
      wgmma_wait<1>();
      end(0, split);
    }
    wgmma_wait<0>();
    ring.give_back(at + last, lane);
    end(kChunks - 1, split);
  }
}

// What a warpgroup has in shared memory beside stages.
template <DType kType>
struct Totals {
  float* of_panel;
  std::uint64_t* meeting;
  std::uint64_t* ahead;  // the block's

  static __device__ __forceinline__ Totals of(const Ring<kType>& ring, int panel) {
    auto* totals = reinterpret_cast<float*>(ring.more());
    auto* barriers = reinterpret_cast<std::uint64_t*>(totals + kPanels * kTotalFloats);
    return {totals + panel * kTotalFloats, barriers + panel, barriers + kPanels};
  }
};

// Totals of a panel in all rows of a piece to where they belong; by the warpgroup's warps, each of
// which has come with its own.
template <int kChunks>
__device__ __forceinline__ void put_totals(const Products& p, const ProductTask& task,
                                           int first_row, int panel, int warp, int lane,
                                           const float* totals) {
  const int column = lane % 16 * 4;
  const bool fours = by_fours(p, task);
#pragma unroll 2
  for (int at = warp % kGroupWarps * 2 + lane / 16; at < kChunks * kChunkRows; at += 8) {
    const Four<float> four = load_four(totals + at * kTotalStride + column);
    if (fours) {
      finish_four(p, task, first_row + at, panel, column, four);
    } else {
      finish(p, task, first_row + at, panel, column, four.v);
    }
  }
}

template <DType kType, int kChunks>
__device__ __forceinline__ void work_on(const Products& p, const Ring<kType>& ring, int at,
                                        const Piece& piece, int warp, int lane, int& meetings) {
  const ProductTask& task = *piece.task;
  const Place place = Place::of(warp, lane);
  const int panel = piece.panel + place.panel;
  const bool there = panel * kPanel < task.w.n;  // one past the last is computed for nobody
  const auto totals = Totals<kType>::of(ring, place.panel);
  const int first_span = piece.first_stage / kSpanStages;
  const int rows = (there ? task.rows - piece.row : 0) - place.first_row;
  float* const first_total = totals.of_panel + place.first_row * kTotalStride + place.column;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    clear_totals(first_total + chunk * kChunkRows * kTotalStride);
  }
  multiply<kType, kChunks>(
      ring, at, piece.stages, task.w.k - piece.first_stage * kWideInputs, place, lane,
      [&](const float(&sums)[kChunkSums], int chunk, int span) {
        const int first_row = chunk * kChunkRows;
        if (p.partial == nullptr) {
          return add_to_totals(sums, first_total + first_row * kTotalStride);
        }
        const std::int64_t line =
            (first_span + span) * p.rows + task.first_row + piece.row + first_row + place.first_row;
        put_span(sums, p.partial + line * p.ld_partial + panel * kPanel + place.column,
                 p.ld_partial, rows - first_row);
      },
      [&] {
        if (place.panel == 0 && lane == 0) arrive(totals.ahead, block_of_cluster());
      });
  if (p.partial != nullptr || !there) return;  // the whole warpgroup does
  const auto meet = [&] {
    __syncwarp();
    if (lane == 0) arrive(totals.meeting, block_of_cluster());
    arrivals_wait(totals.meeting, meetings++);
  };
  meet();
  put_totals<kChunks>(p, task, piece.row, panel, warp, lane, totals.of_panel);
  meet();  // all have read them
}

template <DType kType>
__device__ void work(const WideProducts& wide, const Ring<kType>& ring, int block, int warp,
                     int lane) {
  const Products& p = wide.params;
  const int count = Pieces::count(wide);
  int at = 0;
  int meetings = 0;
  for (int number = static_cast<int>(blockIdx.x); number < count;
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = Pieces::of(wide, number, block);
    if (piece.task == nullptr) continue;
    if (at == 0 && warp >= kGroupWarps) arrivals_wait(Totals<kType>::of(ring, 1).ahead, 0);
    if (Pieces::rows(piece) == kChunkRows) {
      work_on<kType, 1>(p, ring, at, piece, warp, lane, meetings);
    } else {
      work_on<kType, 2>(p, ring, at, piece, warp, lane, meetings);
    }
    at += piece.stages;
  }
}

template <DType kType>
__global__ void __launch_bounds__(paired::kThreads, 1) exact_kernel(const WideProducts wide) {
  follow_previous_kernel();
  const auto ring = Ring<kType>::make();
  if (threadIdx.x == 0) {
    for (int panel = 0; panel < kPanels; ++panel) {
      arrivals_begin(Totals<kType>::of(ring, panel).meeting, kGroupWarps);
    }
    arrivals_begin(Totals<kType>::of(ring, 0).ahead, kGroupWarps);
  }
  paired::work_in_pairs<Pieces>(
      wide, ring, [&](int block, int warp, int lane) { work(wide, ring, block, warp, lane); });
}

// A thread block makes both terms of a tile's rows of one stage, a thread a step of each of its
// rows.
constexpr int kPackThreads = 256;
template <bool kInt4>
__global__ void __launch_bounds__(kPackThreads) pack_kernel(const WideProducts wide) {
  follow_previous_kernel();
  const Products& p = wide.params;
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const int stage = static_cast<int>(blockIdx.y);
  if (tile.row >= task.rows || stage >= wide_stages(task.w)) return;
  auto* units =
      static_cast<unsigned char*>(p.x_operands) +
      (static_cast<std::int64_t>(blockIdx.x) * kExactTerms * wide.stages + stage) * kUnitStageBytes;
  constexpr int kApart = kPackThreads / kWideSteps;  // rows
  constexpr int kSlots = 4;                          // pairs of a chunk
  const int step = static_cast<int>(threadIdx.x) % kWideSteps;
  const int left = task.w.k - stage * kWideInputs;
  const int rows = used_rows(task, tile.row);
  for (int in_tile = static_cast<int>(threadIdx.x) / kWideSteps; in_tile < rows;
       in_tile += kApart) {
    const int row = tile.row + in_tile;
    const float* x = nullptr;
    if (row < task.rows) {
      x = task.x + (p.token != nullptr ? p.token[task.first_row + row] : row) * p.ldx +
          stage * kWideInputs;
    }
    std::uint32_t words[2][kExactTerms][kSlots];  // of the step's chunks
#pragma unroll
    for (int q = 0; q < kSlots; ++q) {
      const int input = exact_input<kInt4>(step, 2 * q);
      float v[4] = {};
      if (x != nullptr && p.wide_x && input + 4 <= left) {
        const Four<float> four = load_four(x + input);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = four.v[i];
      } else if (x != nullptr) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (input + i < left) v[i] = x[input + i];
        }
      }
#pragma unroll
      for (int chunk = 0; chunk < 2; ++chunk) {
        const float first = v[chunk * 2];
        const float second = v[chunk * 2 + 1];
        const std::uint32_t value = bf16_pair(first, second);
        words[chunk][0][q] = value;
        words[chunk][1][q] = bf16_pair(first - first_of(value), second - second_of(value));
      }
    }
#pragma unroll
    for (int term = 0; term < kExactTerms; ++term) {
      auto* unit = reinterpret_cast<uint4*>(units + static_cast<std::int64_t>(term) * wide.stages *
                                                        kUnitStageBytes);
#pragma unroll
      for (int chunk = 0; chunk < 2; ++chunk) {
        const auto& v = words[chunk][term];
        unit[chunk_at(in_tile, step * 2 + chunk)] = make_uint4(v[0], v[1], v[2], v[3]);
      }
    }
  }
}

template <DType kType>
void launch_type(const WideProducts& wide, Stream stream) {
  paired::launch_pairs(exact_kernel<kType>, wide, Pieces::count(wide), Ring<kType>::kSharedBytes,
                       stream);
}

}  // namespace

void pack_exact_rows(const WideProducts& wide, Stream stream) {
  const dim3 grid(static_cast<unsigned>(wide.params.tile_count),
                  static_cast<unsigned>(wide.stages));
  launch_early(wide.dtype == DType::kInt4 ? pack_kernel<true> : pack_kernel<false>, grid,
               kPackThreads, 0, stream, wide);
}

void exact_products(const WideProducts& wide, Stream stream) {
  by_weights(wide.dtype, [&]<DType kType>() { launch_type<kType>(wide, stream); });
  if (wide.params.partial != nullptr) finish_products(wide.params, stream);
}

}  // namespace dsm::kernels::cuda
