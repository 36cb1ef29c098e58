// The matrix product on tensor cores, for any number of rows.
//
// A thread block of 8 warps takes a tile of 16, 32 or 64 rows and a panel of 64 columns. Each warp
// goes through a split of the inputs of its own (splits.h) straight from memory to registers: the
// panels' layout is that of the tensor core's operand (fragments.h), and nobody else in the block
// needs the same weights. The warps' sums meet in shared memory and are added in the order of
// splits. One row costs the time of reading the weights, as 16 do.
//
// Weights are BF16, FP8 or integers of 8 or 4 bits, all exact as BF16; activations become two BF16
// terms, or one where the rank is run loosely. Sums are FP32. An activation that is infinite gives
// NaN.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/finish.cuh"
#include "kernels/cuda/fragments.h"
#include "kernels/cuda/last_block.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kProductThreads = 32 * kSpanSplits;
// Floats from one row of a warp's sums to the next: 64 and 4 that keep lanes on different banks.
inline constexpr int kSumStride = kPanel + 4;

// use(product, register, scale) for the scales of a panel's columns that are a lane's: registers 0
// and 1 of each product's sums, and 2 and 3 likewise. Four are loaded at a time.
template <class Use>
__device__ __forceinline__ void for_each_scale(const float* scales, int lane, const Use& use) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Four<float> four = load_four(scales + column_of(half * 4, i, lane));
#pragma unroll
      for (int j = 0; j < 4; ++j) use(half * 4 + j, i, four.v[j]);
    }
  }
}

// One warp's sums of a split: 16 kTiles rows, 64 columns.
template <int kTiles>
struct TensorSums {
  float v[kTiles][kProducts][4];

  __device__ void clear() {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int j = 0; j < kProducts; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) v[t][j][i] = 0.0F;
      }
    }
  }

  // Times the scales of the panel's columns, and `factor`.
  __device__ void scale(const float* scales, float factor, int lane) {
    for_each_scale(scales, lane, [&](int j, int i, float of_column) {
      const float scale = of_column * factor;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        v[t][j][i] *= scale;
        v[t][j][i + 2] *= scale;
      }
    });
  }

  // Rows of tile t to shared memory, four columns at a time.
  __device__ void store(int t, float (*to)[kSumStride], int lane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Four<float> four = {{v[t][half * 4][i], v[t][half * 4 + 1][i], v[t][half * 4 + 2][i],
                                   v[t][half * 4 + 3][i]}};
        *reinterpret_cast<Four<float>*>(&to[row_of(i, lane)][column_of(half * 4, i, lane)]) = four;
      }
    }
  }
};

// Where a warp takes its rows from, of a product of up to 16: memory, in FP32. A row that is null
// counts as zeros; `wide` as load_activations() has it.
template <int kTerms>
struct PlainOperands {
  const float* row;
  const float* row_below;
  bool wide;

  __device__ __forceinline__ bool whole() const { return wide; }
  __device__ __forceinline__ void begin(int) {}
  __device__ __forceinline__ void next(int) {}
  // The lane's operand of 16 rows; its four inputs of the step are those from `first` on. kWhole:
  // all are there, and the rows are whole().
  template <bool kWhole>
  __device__ __forceinline__ RowOperand<kTerms> get(int, int, int first, int end, int) const {
    return row_operand<kTerms>(kWhole ? load_whole_activations(row, row_below, first)
                                      : load_activations(row, row_below, first, end, wide));
  }
};

// And of more rows, where arithmetic and reading of rows weigh as much as weights do: operands that
// pack_rows() has made. They are on their way to shared memory some steps before they are used, and
// a lane reads there what it has copied itself, so nobody waits for anybody.
template <int kTiles, int kTerms>
struct PackedOperands {
  static constexpr int kWords = kTiles * kTerms;  // of 16 bytes, of a lane and step
  // Of a warp. 64 KiB for all warps are what the smallest GPUs have beside the sums.
  static constexpr int kMostStages = (64 << 10) / (kSpanSplits * kWords * 32 * 16);
  static constexpr int kStages = kMostStages < 4 ? kMostStages : 4;
  static constexpr int kLaneWords = kStages * kWords * 32;
  static constexpr int kSharedBytes = kSpanSplits * kLaneWords * 16;

  const uint4* from;  // [steps][kTiles][kTerms][lane] of the warp's split, at its lane
  uint4* ring;        // [kStages] of the same, at its lane
  int steps = 0;

  __device__ __forceinline__ bool whole() const { return true; }
  // Of a split of so many steps.
  __device__ __forceinline__ void begin(int count) {
    steps = count;
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) ask(step);
  }
  // Steps come in their order.
  __device__ __forceinline__ void next(int step) {
    // What is copied to has been read, in the step before: nothing else orders a copy of this kind.
    __syncwarp();
    ask(step + kStages - 1);
    cp_async_wait<kStages - 1>();
  }
  template <bool kWhole>
  __device__ __forceinline__ RowOperand<kTerms> get(int step, int tile, int, int, int) const {
    RowOperand<kTerms> a;
#pragma unroll
    for (int t = 0; t < kTerms; ++t) {
      a.term[t] = fragment_of(ring[((step % kStages * kTiles + tile) * kTerms + t) * 32]);
    }
    return a;
  }

 private:
  __device__ __forceinline__ void ask(int step) {
    if (step < steps) {
#pragma unroll
      for (int i = 0; i < kWords; ++i) {
        cp_async_16(ring + (step % kStages * kWords + i) * 32, from + (step * kWords + i) * 32);
      }
    }
    cp_async_commit();
  }
};

// sums += rows times the weights of step number `step` of a split; the lane's four inputs of it are
// those from `first` on.
template <int kTiles, int kTerms, bool kWhole, class Rows>
__device__ __forceinline__ void tensor_step(Rows& rows, int step, int first, int end, int lane,
                                            const FragmentB& b, TensorSums<kTiles>& sums) {
  rows.next(step);
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    const RowOperand<kTerms> a = rows.template get<kWhole>(step, t, first, end, lane);
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
#pragma unroll
      for (int j = 0; j < kProducts; ++j) mma_bf16(sums.v[t][j], a.term[term].v, b.v[j]);
    }
  }
}

// Steps whose weights are on their way from memory before they are used: 128 bytes of a lane. With
// few rows nothing but the weights takes time, and 16 warps on a processor have 64 KiB in flight,
// several times what an H100's bandwidth times its latency asks for (18 KiB of a processor). With
// more rows 8 warps have half as much. Weights in FP32 leave registers for one step.
template <std::size_t kLaneBytes>
inline constexpr int kStepsAhead = kLaneBytes < 16 ? 1 : static_cast<int>(128 / kLaneBytes);

// Where a split's scales are to be had soon from the second cache.
__device__ __forceinline__ const float* scales_of_split(const PackedMatrix& w, int panel,
                                                        int number) {
  return w.scales + (static_cast<std::int64_t>(panel) * splits_of(w) + number) * kPanel;
}
template <class Split>
__device__ __forceinline__ void ask_for_scales(const Split& split) {
  if constexpr (requires { split.scales; }) {
    constexpr int kLine = 128 / sizeof(float);
    if (split.begin < split.end && split.lane < kPanel / kLine) {
      ask_second_cache(split.scales + split.lane * kLine);
    }
  }
}

// Steps of a split that are on their way. A split has inputs [begin, end), kInputs a step, and
// load(at) gives the weights of the step at `at`. Most splits are whole(), with all the inputs that
// there may be: whole_step(i) gives those of step number i without a look at where they end, which
// would cost more instructions than the products do.
template <class Split>
struct Ahead {
  using Words = decltype(std::declval<const Split&>().load(0));
  static constexpr int kSteps = kStepsAhead<sizeof(Words)>;
  static constexpr bool kAsksNext = false;
  Words v[kSteps];

  __device__ __forceinline__ void ask(const Split& split) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int at = split.begin + i * Split::kInputs;
      if (at < split.end) v[i] = split.load(at);
    }
    ask_for_scales(split);
  }
  // use(at, its weights, whole) for each step of the split that was asked for. kMayBeWhole: `whole`
  // may be said of it.
  template <bool kMayBeWhole, class Use>
  __device__ __forceinline__ void for_each(const Split& split, [[maybe_unused]] bool whole,
                                           const Use& use) {
    if constexpr (kMayBeWhole) {
      if (whole) {
        constexpr int kAll = kSplitInputs / Split::kInputs;
#pragma unroll
        for (int i = 0; i < kAll; ++i) {
          const auto weights = v[i % kSteps];
          if (i + kSteps < kAll) v[i % kSteps] = split.whole_step(i + kSteps);
          use(split.begin + i * Split::kInputs, weights, std::true_type());
        }
        return;
      }
    }
    for (int first = split.begin; first < split.end; first += kSteps * Split::kInputs) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int at = first + i * Split::kInputs;
        if (at >= split.end) break;
        const auto weights = v[i];
        if (at + kSteps * Split::kInputs < split.end) {
          v[i] = split.load(at + kSteps * Split::kInputs);
        }
        use(at, weights, std::false_type());
      }
    }
  }
};

// The same of split after split, so that as many steps are always on their way: a step's place is
// that of one of `next`, which follows, when this split has no more. The weights of one warp in two
// blocks have more registers together (megakernel.cu), so steps are kMore times as many.
template <class Split, int kMore>
struct SplitStream {
  using Words = typename Ahead<Split>::Words;
  static constexpr int kSteps = kMore * Ahead<Split>::kSteps;
  static constexpr bool kAsksNext = true;
  Words v[kSteps];
  Split next;

  __device__ __forceinline__ void ask(const Split& split) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) ask_step(split, i);
    ask_for_scales(split);
  }
  template <bool kMayBeWhole, class Use>
  __device__ __forceinline__ void for_each(const Split& split, bool whole, const Use& use) {
    static_assert(kMayBeWhole);
    ask_for_scales(next);
    if (whole) {
      constexpr int kAll = kSplitInputs / Split::kInputs;
      const bool next_whole = next.whole();
#pragma unroll
      for (int i = 0; i < kAll; ++i) {
        const auto weights = v[i % kSteps];
        if (i + kSteps < kAll) {
          v[i % kSteps] = split.whole_step(i + kSteps);
        } else if (next_whole) {
          v[i % kSteps] = next.whole_step(i + kSteps - kAll);
        } else {
          ask_step(next, i + kSteps - kAll);
        }
        use(split.begin + i * Split::kInputs, weights, std::true_type());
      }
      return;
    }
    for (int first = split.begin; first < split.end; first += kSteps * Split::kInputs) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        const int at = first + i * Split::kInputs;
        const int later = at + kSteps * Split::kInputs;
        const auto weights = v[i];
        if (later < split.end) {
          v[i] = split.load(later);
        } else if (at < split.end || first == split.begin) {  // else it is there
          ask_step(next, i);
        }
        if (at < split.end) use(at, weights, std::false_type());
      }
    }
  }

 private:
  __device__ __forceinline__ void ask_step(const Split& split, int i) {
    const int at = split.begin + i * Split::kInputs;
    if (at < split.end) v[i] = split.load(at);
  }
};

// A split in FP8, of which a lane has so many inputs of a step.
template <int kLaneInputs, bool kOnce>
struct Fp8Split {
  static constexpr int kInputs = 4 * kLaneInputs;
  const std::uint8_t* panel;
  int begin;
  int end;
  int lane;
  const float* scales;  // of the panel's columns

  static __device__ Fp8Split of(const PackedMatrix& w, int panel, int number, int lane) {
    return {
        static_cast<const std::uint8_t*>(w.data) + static_cast<std::int64_t>(panel) * w.k * kPanel,
        split_begin(w, number), split_end(w, number), lane, scales_of_split(w, panel, number)};
  }
  __device__ __forceinline__ bool whole() const { return end - begin == kSplitInputs; }
  __device__ __forceinline__ Fp8Words<kLaneInputs> whole_step(int step) const {
    return load_e4m3<kLaneInputs, true>(panel + static_cast<std::int64_t>(begin) * kPanel,
                                        step * kInputs, 0, lane, kOnce);
  }
  __device__ __forceinline__ Fp8Words<kLaneInputs> load(int at) const {
    return load_e4m3<kLaneInputs>(panel, at, end, lane, kOnce);
  }
};

// Steps of a split; whole ones are told from others where one tile leaves registers for both.
template <int kTiles, class Split, class OnTheirWay, class Rows, class Use>
__device__ __forceinline__ void for_each_step(const Split& split, OnTheirWay& ahead,
                                              const Rows& rows, const Use& use) {
  constexpr bool kMayBeWhole = kTiles == 1;
  ahead.template for_each<kMayBeWhole>(split, kMayBeWhole && split.whole() && rows.whole(), use);
}

// sums += rows times a split of a panel.
template <int kTiles, int kTerms, class Split, class OnTheirWay, class Rows>
__device__ __forceinline__ void tensor_chain(const Split& split, OnTheirWay& ahead, Rows& rows,
                                             TensorSums<kTiles>& sums) {
  rows.begin((split.end - split.begin + kStepInputs - 1) / kStepInputs);
  for_each_step<kTiles>(split, ahead, rows, [&](int at, const auto& weights, auto whole) {
    tensor_step<kTiles, kTerms, decltype(whole)::value>(rows, (at - split.begin) / kStepInputs,
                                                        first_input(at, split.lane), split.end,
                                                        split.lane, operand(weights), sums);
  });
}

// A thread block's shared memory, before the operands.
template <class Row, int kTiles>
struct ProductShared {
  alignas(16) float sums[kSpanSplits][kTileRows][kSumStride];  // of 16 rows, by warp
  Row row_of_x[kTiles * kTileRows];
  bool last;  // last_to_meet()
};

// Rows as they stand in memory: their first input.
struct PlainRows {
  using Row = const float*;
  static __device__ Row row(const Products& p, const ProductTask& task, std::int64_t at) {
    return task.x + at * p.ldx;
  }
  template <int kTiles>
  static constexpr int kOperandBytes = 0;
  template <int kTiles>
  static __device__ const Row* rows(const Products&, const Row* row_of_x, int, int) {
    return row_of_x;
  }
};

// Rows as operands of the tensor cores, made on the way or by pack_rows().
template <int kTerms>
struct OperandRows : PlainRows {
  template <int kTiles>
  using Rows =
      std::conditional_t<kTiles == 1, PlainOperands<kTerms>, PackedOperands<kTiles, kTerms>>;

  template <int kTiles>
  static constexpr int kOperandBytes =
      kTiles == 1 ? 0 : PackedOperands<kTiles, kTerms>::kSharedBytes;
  template <int kTiles>
  static __device__ __forceinline__ Rows<kTiles> rows(const Products& p, const Row* row_of_x,
                                                      int split, int lane) {
    if constexpr (kTiles == 1) {
      return {row_of_x[lane / 4], row_of_x[lane / 4 + 8], p.wide_x};
    } else {
      const int warp = static_cast<int>(threadIdx.x) / 32;
      const std::int64_t splits = std::int64_t{p.spans} * kSpanSplits;
      auto* operands = reinterpret_cast<uint4*>(dynamic_shared<ProductShared<Row, kTiles>>() + 1);
      return {static_cast<const uint4*>(p.x_operands) + lane +
                  (blockIdx.x * splits + split) * (kSplitSteps * Rows<kTiles>::kWords * 32),
              operands + warp * Rows<kTiles>::kLaneWords + lane};
    }
  }
};

// Which part of a launch a thread block does: spans [first_span, last_span) of a panel of a tile.
struct ProductWork {
  ProductTile tile;
  int tile_number;
  int panel;
  int first_span;
  int last_span;
};
__device__ __forceinline__ int end_of_spans(const Products& p, const PackedMatrix& w,
                                            int first_span) {
  const int spans = spans_of(w);
  return first_span + p.spans_each < spans ? first_span + p.spans_each : spans;
}

// Weights::Sums<kTiles> are a warp's sums. Weights::split<kTiles>() is a split of a panel, of which
// ask() begins to load weights and Weights::chain fills the sums; one past the last is empty.
// Weights::row is where a row stands and Weights::rows what chain takes of a split's inputs from,
// in Weights::kOperandBytes<kTiles> of shared memory, Weights::kMostTiles is how many tiles a
// warp's registers hold.
//
// `split` is the warp's of the first span; of one tile it has been asked for. next_split() is that
// of what the block does next, and asked for when this returns; an empty one if there is none.
template <class Weights, int kTiles, class Split, class OnTheirWay, class NextSplit>
__device__ __forceinline__ void product_spans(const Products& p, const ProductTask& task,
                                              const ProductWork& work,
                                              ProductShared<typename Weights::Row, kTiles>& shared,
                                              Split& split, OnTheirWay& ahead,
                                              const NextSplit& next_split) {
  auto& [sums, row_of_x, last] = shared;
  const PackedMatrix w = task.w;
  const ProductTile tile = work.tile;
  const int panel = work.panel;
  const int first_span = work.first_span;
  const int last_span = work.last_span;
  const int spans = spans_of(w);
  const int splits = splits_of(w);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;

  if (thread < kTiles * kTileRows) {
    const int row = tile.row + thread;
    typename Weights::Row x{};
    if (row < task.rows) {
      x = Weights::row(p, task, p.token != nullptr ? p.token[task.first_row + row] : row);
    }
    row_of_x[thread] = x;
  }
  __syncthreads();

  // What this thread adds up of each 16 rows: four columns of one.
  const int row = thread / (kPanel / 4);
  const int column = thread % (kPanel / 4) * 4;
  float total[kTiles][4];
  const std::int64_t step = p.rows * p.ld_partial;  // from a span to the next
  float* const meet = p.partial +
                      (static_cast<std::int64_t>(task.first_row) + tile.row + row) * p.ld_partial +
                      panel * kPanel + column;
  for (int span = first_span; span < last_span; ++span) {
    const int number = span * kSpanSplits + warp;
    typename Weights::template Sums<kTiles> mine;
    mine.clear();
    if (kTiles > 1) {
      split = Weights::template split<kTiles>(w, panel, number, lane);
      ahead.ask(split);
    }
    const auto following = [&] {
      return span + 1 < last_span
                 ? Weights::template split<kTiles>(w, panel, number + kSpanSplits, lane)
                 : next_split();
    };
    if constexpr (OnTheirWay::kAsksNext) ahead.next = following();
    if (number < splits) {
      auto rows = Weights::template rows<kTiles>(p, row_of_x, number, lane);
      Weights::template chain<kTiles>(w, panel, number, split, ahead, rows, mine);
    } else if constexpr (OnTheirWay::kAsksNext) {
      ahead.ask(ahead.next);
    }
    if constexpr (OnTheirWay::kAsksNext) {
      split = ahead.next;
    } else if (kTiles == 1) {  // more tiles have no registers to spare
      split = following();
      ahead.ask(split);
    }
    const int count =
        splits - span * kSpanSplits < kSpanSplits ? splits - span * kSpanSplits : kSpanSplits;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      __syncthreads();  // what was there has been read
      mine.store(t, sums[warp], lane);
      __syncthreads();
      Four<float> sum = load_four(&sums[0][row][column]);
      for (int from = 1; from < count; ++from) {
        const Four<float> other = load_four(&sums[from][row][column]);
#pragma unroll
        for (int i = 0; i < 4; ++i) sum.v[i] += other.v[i];
      }
      if (p.partial != nullptr) {
        if (tile.row + t * kTileRows + row < task.rows) {
          *reinterpret_cast<Four<float>*>(meet + t * kTileRows * p.ld_partial + span * step) = sum;
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[t][i] = span == first_span ? sum.v[i] : total[t][i] + sum.v[i];
      }
    }
  }

  if (p.partial != nullptr) {
    const int blocks = (spans + p.spans_each - 1) / p.spans_each;
    if (!last_to_meet(p.met + std::int64_t{work.tile_number} * p.panels + panel, blocks, last)) {
      return;
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (tile.row + t * kTileRows + row >= task.rows) break;
      add_spans(meet + t * kTileRows * p.ld_partial, step, spans, total[t]);
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    finish(p, task, tile.row + t * kTileRows + row, panel, column, total[t]);
  }
}

// Two blocks share a processor where rows are few. Weights are asked for before the block waits for
// anybody: for the kernel ahead, where the host has made the lists, and for its own warps, whose
// sums of a span meet while those of the next are on their way.
template <class Weights, int kTiles>
__global__ void __launch_bounds__(kProductThreads, kTiles == 1 ? 2 : 1)
    product_kernel(const Products p) {
  if (!p.early) follow_previous_kernel();
  auto& shared = *dynamic_shared<ProductShared<typename Weights::Row, kTiles>>();
  const ProductTile tile = p.tiles[blockIdx.x];
  const ProductTask& task = p.tasks[tile.task];
  const PackedMatrix w = task.w;
  const int panel = static_cast<int>(blockIdx.y);
  const int first_span = static_cast<int>(blockIdx.z) * p.spans_each;
  if (tile.row >= task.rows) return;                               // the whole thread block does
  if (panel * kPanel >= w.n || first_span >= spans_of(w)) return;  // and here
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto split = Weights::template split<kTiles>(w, panel, first_span * kSpanSplits + warp, lane);
  Ahead<decltype(split)> ahead;
  if (kTiles == 1) ahead.ask(split);
  if (p.early) follow_previous_kernel();
  const ProductWork work = {tile, static_cast<int>(blockIdx.x), panel, first_span,
                            end_of_spans(p, w, first_span)};
  product_spans<Weights, kTiles>(p, task, work, shared, split, ahead,
                                 [] { return decltype(split){}; });
}

template <class Weights, int kTiles>
void launch_tiles(const Products& p, Stream stream) {
  const dim3 grid(static_cast<unsigned>(p.tile_count), static_cast<unsigned>(p.panels),
                  static_cast<unsigned>((p.spans + p.spans_each - 1) / p.spans_each));
  constexpr int kBytes = sizeof(ProductShared<typename Weights::Row, kTiles>) +
                         Weights::template kOperandBytes<kTiles>;
  static_assert(kBytes <= kMostSharedBytes);
  launch_early(product_kernel<Weights, kTiles>, grid, kProductThreads, kBytes, stream, p);
}

template <class Weights>
void launch_products(const Products& p, Stream stream) {
  if (p.tile_rows == 16) {
    launch_tiles<Weights, 1>(p, stream);
  } else if (p.tile_rows == 32) {
    launch_tiles<Weights, 2>(p, stream);
  } else if constexpr (Weights::kMostTiles == 4) {
    launch_tiles<Weights, 4>(p, stream);
  }
}

// One for each type of weights, each in a file of its own.
void bf16_products(const Products& params, Stream stream);
void fp8_products(const Products& params, Stream stream);
void fp8_row_products(const Products& params, Stream stream);
void int8_products(const Products& params, Stream stream);
void int4_products(const Products& params, Stream stream);
void f32_products(const Products& params, Stream stream);

}  // namespace dsm::kernels::cuda
