// A step of decoding as one kernel (megakernel.h).
//
// Every block goes through all operators. It does the units of each that are its own, those with
// its number and every gridDim.y further ones, which lie in memory as the other blocks' beside
// them. Before an operator that waits, a block says that it has arrived, and asks for the first
// weights of a product, which nobody writes, before it waits for the others.
#include "kernels/cuda/attention_merge.cuh"
#include "kernels/cuda/attention_splits.cuh"
#include "kernels/cuda/grid_barrier.cuh"
#include "kernels/cuda/kv_write.cuh"
#include "kernels/cuda/megakernel.h"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/product_bf16.cuh"
#include "kernels/cuda/rope.cuh"

namespace dsm::kernels::cuda {
namespace {

static_assert(kMegakernelThreads == kProductThreads && kMegakernelThreads == kAttentionThreads &&
              kMegakernelThreads == kKvWriteThreads);
static_assert(kMegakernelRows == kTileRows);
static_assert(sizeof(MegakernelOp) % 16 == 0);

// What a warp asks for of its split of the next product, to the second cache, when it is done with
// one: with all blocks 17 MiB, which an H100 reads in 6 us, while small operators and barriers take
// as long. The second cache has 50 MiB.
constexpr int kAskedBytes = 16 << 10;
// A block has a processor, and its threads all registers: one in which two blocks are has as many
// weights on their way together.
constexpr int kMoreSteps = 2;
constexpr int kLineBytes = 128;

using ProductMemory = ProductShared<const float*, 1>;
constexpr int kAttentionBytes = SplitShared<1, 2>::bytes(kMegakernelKeyDim);

struct Shared {
  MegakernelOp ops[2];  // in turn: this one, and the next on its way
  union {
    float warp_sum[kNormThreads / 32];
    MergedPart<kMegakernelThreads> merged;
    ProductMemory product;
    uint4 attention[kAttentionBytes / sizeof(uint4)];
  };
  alignas(16) float normed[kNormedBytes / sizeof(float)];  // rows of the product
};
static_assert(sizeof(Shared) <= kMostSharedBytes);

// A copy, in registers: what is in shared memory could change with everything that is stored there.
template <class T>
__device__ __forceinline__ T params_of(const MegakernelOp& op) {
  return *reinterpret_cast<const T*>(op.params);
}

// Lines of an operator's description are copied by as many of the first threads.
__device__ void take_op(const MegakernelOp* ops, int number, Shared& shared) {
  constexpr int kWords = sizeof(MegakernelOp) / sizeof(uint4);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kWords) return;
  reinterpret_cast<uint4*>(&shared.ops[number % 2])[thread] =
      reinterpret_cast<const uint4*>(ops + number)[thread];
}

// The block's units of an operator: unit(number) for each.
template <class Unit>
__device__ __forceinline__ void each_unit(const MegakernelOp& op, const Unit& unit) {
  const int blocks = static_cast<int>(gridDim.y);
  const int mine = static_cast<int>(blockIdx.y) - op.first;
  for (int number = mine < 0 ? mine + blocks : mine; number < op.units; number += blocks) {
    unit(number);
    __syncthreads();  // what it has in shared memory has been read
  }
}

// Which part of a product a unit is: units of a panel's parts follow each other.
__device__ __forceinline__ ProductWork work_of(const Products& p, const PackedMatrix& w,
                                               int number) {
  const int parts = (spans_of(w) + p.spans_each - 1) / p.spans_each;
  const int first_span = number % parts * p.spans_each;
  return {{0, 0}, 0, number / parts, first_span, end_of_spans(p, w, first_span)};
}

template <int kTerms>
class ProductUnits {
 public:
  using Weights = Bf16Weights<kTerms>;

  __device__ __forceinline__ explicit ProductUnits(const MegakernelOp& op)
      : of_(params_of<OneProduct>(op)), units_(op.units), number_(static_cast<int>(blockIdx.y)) {}

  // The weights of the first unit.
  __device__ __forceinline__ void ask() {
    split_ = split_of(number_);
    stream_.ask(split_);
  }
  // Its rows, if they are a norm's, all of them by each block.
  __device__ __forceinline__ void make_rows(Shared& shared) {
    RmsNormParams norm = of_.norm;
    if (norm.rows == 0 || number_ >= units_) return;
    norm.y = shared.normed;
    norm.ldy = norm.width;
    for (int row = 0; row < norm.rows; ++row) {
      norm_row<kMegakernelThreads>(norm, row, shared.warp_sum);
      __syncthreads();
    }
    of_.task.x = shared.normed;
    of_.products.ldx = norm.ldy;
    of_.products.wide_x = true;
  }
  __device__ __forceinline__ void run(ProductMemory& memory) {
    const int blocks = static_cast<int>(gridDim.y);
    for (; number_ < units_; number_ += blocks) {
      product_spans<Weights, 1>(of_.products, of_.task, work_of(of_.products, of_.task.w, number_),
                                memory, split_, stream_,
                                [&] { return split_of(number_ + blocks); });
    }
  }

 private:
  // This warp's first of a unit; none where there is no such unit.
  __device__ __forceinline__ Bf16Split<true> split_of(int number) const {
    if (number >= units_) return {};
    const PackedMatrix& w = of_.task.w;
    const ProductWork work = work_of(of_.products, w, number);
    const int thread = static_cast<int>(threadIdx.x);
    return Weights::template split<1>(w, work.panel, work.first_span * kSpanSplits + thread / 32,
                                      thread % 32);
  }

  OneProduct of_;
  const int units_;
  int number_;
  Bf16Split<true> split_ = {};
  SplitStream<Bf16Split<true>, kMoreSteps> stream_;
};

// A product's weights that the block's first unit of it begins with, to the second cache.
__device__ void ask_for_weights(const MegakernelOp& op) {
  const auto [p, task, norm] = params_of<OneProduct>(op);
  const PackedMatrix& w = task.w;
  const int number = static_cast<int>(blockIdx.y);
  if (number >= op.units) return;
  const ProductWork work = work_of(p, w, number);
  const int thread = static_cast<int>(threadIdx.x);
  const int split = work.first_span * kSpanSplits + thread / 32;
  constexpr int kInputBytes = kPanel * 2;
  const int bytes = (split_end(w, split) - split_begin(w, split)) * kInputBytes;
  const std::int64_t pairs = (w.k + 1) / 2;
  const char* from = static_cast<const char*>(w.data) + work.panel * pairs * kPanel * 4 +
                     std::int64_t{split_begin(w, split)} * kInputBytes;
  for (int at = thread % 32 * kLineBytes; at < bytes && at < kAskedBytes; at += 32 * kLineBytes) {
    ask_second_cache(from + at);
  }
}

// Weights are on their way before the others have arrived.
template <int kTerms>
[[gnu::noinline]] __device__ void multiply_rows(const MegakernelOp& op, GridBarrier& barrier,
                                                Shared& shared) {
  ProductUnits<kTerms> units(op);
  units.ask();
  if (op.waits) barrier.wait();
  units.make_rows(shared);
  units.run(shared.product);
}

// Functions of their own: inlined into one kernel, what they have in registers would not all fit.
template <DType kType, int kTerms>
[[gnu::noinline]] __device__ void attend_to_splits(const MegakernelOp& op, uint4* memory) {
  const auto launch = params_of<AttentionLaunch>(op);
  each_unit(op, [&](int number) {
    attend_to_split<kType, 1, kTerms>(launch, number / launch.splits, number % launch.splits,
                                      memory);
  });
}

[[gnu::noinline]] __device__ void merge_rows(const MegakernelOp& op,
                                             MergedPart<kMegakernelThreads>& part) {
  const auto launch = params_of<AttentionLaunch>(op);
  each_unit(op, [&](int number) {
    for (int first = 0; first * kMegakernelThreads < launch.params.kv.value_dim; ++first) {
      merge_row(launch, number / launch.item_rows, number % launch.item_rows, first, part);
    }
  });
}

[[gnu::noinline]] __device__ void norm_rows(const MegakernelOp& op,
                                            float (&warp_sum)[kNormThreads / 32]) {
  const auto p = params_of<RmsNormParams>(op);
  each_unit(op, [&](int number) { norm_row<kMegakernelThreads>(p, number, warp_sum); });
}

[[gnu::noinline]] __device__ void write_heads(const MegakernelOp& op) {
  const auto p = params_of<KvWriteHeadsParams>(op);
  each_unit(op, [&](int number) { write_head(p, number / p.kv.heads, number % p.kv.heads); });
}

__device__ void turn_pairs(const MegakernelOp& op) {
  const auto p = params_of<RopeQueryParams>(op);
  each_unit(op, [&](int number) {
    turn_pair(p, std::int64_t{number} * kMegakernelThreads + threadIdx.x);
  });
}

__device__ void count_move(const MegakernelOp& op) {
  const auto p = params_of<CountMove>(op);
  each_unit(op, [&](int) {
    if (threadIdx.x == 0) *p.seen = ++*p.count;
  });
}

template <int kTerms>
__device__ void attend(const MegakernelOp& op, uint4* memory) {
  switch (params_of<AttentionLaunch>(op).params.kv.dtype) {
    case DType::kF32:
      return attend_to_splits<DType::kF32, kTerms>(op, memory);
    case DType::kBF16:
      return attend_to_splits<DType::kBF16, kTerms>(op, memory);
    default:
      return attend_to_splits<DType::kF8E4M3, kTerms>(op, memory);
  }
}

// What is no product.
template <int kTerms>
__device__ void run_small(const MegakernelOp& op, Shared& shared) {
  switch (op.kind) {
    case MegakernelKind::kNorm:
      return norm_rows(op, shared.warp_sum);
    case MegakernelKind::kKvWriteHeads:
      return write_heads(op);
    case MegakernelKind::kRopeQuery:
      return turn_pairs(op);
    case MegakernelKind::kAttentionSplits:
      return attend<kTerms>(op, shared.attention);
    case MegakernelKind::kAttentionMerge:
      return merge_rows(op, shared.merged);
    case MegakernelKind::kCountMove:
      return count_move(op);
    case MegakernelKind::kProduct:
      return;
  }
}

template <int kTerms>
__global__ void __launch_bounds__(kMegakernelThreads, 1)
    megakernel_kernel(const MegakernelOp* ops, const int count, std::uint32_t* barrier_word) {
  follow_previous_kernel();
  auto& shared = *dynamic_shared<Shared>();
  GridBarrier barrier(barrier_word);
  take_op(ops, 0, shared);
  __syncthreads();
  for (int i = 0; i < count; ++i) {
    const MegakernelOp& op = shared.ops[i % 2];
    if (op.waits) barrier.arrive();
    if (op.kind == MegakernelKind::kProduct) {
      multiply_rows<kTerms>(op, barrier, shared);
      if (op.ask_for >= 0) ask_for_weights(ops[op.ask_for]);
    } else {
      if (op.waits) barrier.wait();
      run_small<kTerms>(op, shared);
    }
    if (i + 1 < count) take_op(ops, i + 1, shared);
    __syncthreads();
  }
}

template <int kTerms>
void launch_terms(const MegakernelLaunch& p, Stream stream) {
  launch_together(p.blocks, megakernel_kernel<kTerms>, kMegakernelThreads,
                  static_cast<int>(sizeof(Shared)), stream, p.ops, p.count, p.barrier);
}

}  // namespace

void megakernel(const MegakernelLaunch& p, Stream stream) {
  if (p.exact) {
    launch_terms<2>(p, stream);
  } else {
    launch_terms<1>(p, stream);
  }
}

}  // namespace dsm::kernels::cuda
