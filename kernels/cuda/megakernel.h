// A step of decoding as one kernel: the operators of a step of few rows as a list that thread
// blocks, as many as the GPU holds at a time, go through together, with barriers in between. Where
// each operator is a kernel, memory is idle while one ends and the next begins; here a block that
// has done its part asks for weights of the next product, to the second cache, and waits for
// nothing but the others. The bits are those of the kernels, whose functions it calls.
//
// Products by weights in BF16 of up to 16 rows, norms, rope, writing of heads' keys and values, and
// attention by splits of up to 16 (token, head) pairs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

enum class MegakernelKind : std::uint8_t {
  kNorm,             // RmsNormParams: a row
  kProduct,          // OneProduct: spans of a panel
  kKvWriteHeads,     // KvWriteHeadsParams: a token's head
  kRopeQuery,        // RopeQueryParams: kMegakernelThreads pairs
  kAttentionSplits,  // AttentionLaunch: a split of an item
  kAttentionMerge,   // AttentionLaunch: a row of an item
  kCountMove,        // CountMove: all of it
};

// A product of one task and tile, as products() has it. Where norm.rows > 0 its rows are what the
// norm gives, which nothing else reads: each block makes them for itself.
struct OneProduct {
  Products products;
  ProductTask task;
  RmsNormParams norm;
};
// As count_move().
struct CountMove {
  std::uint64_t* count = nullptr;
  std::uint64_t* seen = nullptr;
};

struct alignas(16) MegakernelOp {
  static constexpr std::size_t kBytes = 512;

  MegakernelKind kind = MegakernelKind::kNorm;
  bool waits = true;          // for all that came before, in all blocks
  std::int32_t units = 0;     // parts of it that blocks do; of a product and of splits at most
  std::int32_t first = 0;     // which block does unit 0
  std::int32_t ask_for = -1;  // the product whose weights a block then asks for; -1: none
  alignas(16) std::byte params[kBytes] = {};

  template <class T>
  void set(const T& value) {
    static_assert(sizeof(T) <= kBytes && std::is_trivially_copyable_v<T>);
    std::memcpy(params, &value, sizeof value);
  }
};

inline constexpr int kMegakernelThreads = 256;
inline constexpr int kMegakernelRows = 16;  // of a product, and of an item of attention
// The widest keys whose queries have room in shared memory.
inline constexpr int kMegakernelKeyDim = 576;

// Of a norm that blocks make for themselves: a row more is 16 KiB more that each of them reads from
// the second cache.
inline constexpr int kNormedRows = 2;
inline constexpr int kNormedBytes = 32 << 10;

// Of so many processors.
constexpr int megakernel_blocks(int processors) {
  return processors;
}

bool in_megakernel(const RmsNormParams& params);
// Of one task.
bool in_megakernel(const Products& launch, DType dtype);
bool in_megakernel(const AttentionLaunch& launch);
// Whether it may be a part of the next product, and is of this one.
bool may_be_of_product(const RmsNormParams& norm);
bool is_of_product(const RmsNormParams& norm, const Products& launch, const ProductTask& task);

// How many spans of a panel a block goes through, one after the other: as many as may be without a
// block having more to read than with fewer, since parts of a panel's sums meet in memory.
int megakernel_spans_each(int spans, int panels, int blocks);

// Operators of each kind, and how many units they have.
MegakernelOp norm_op(const RmsNormParams& params);
MegakernelOp product_op(const Products& launch, const ProductTask& task,
                        const RmsNormParams& norm = {});
MegakernelOp kv_write_heads_op(const KvWriteHeadsParams& params);
MegakernelOp rope_query_op(const RopeQueryParams& params);
MegakernelOp splits_op(const AttentionLaunch& launch);
MegakernelOp merge_op(const AttentionLaunch& launch);
MegakernelOp count_move_op(const CountMove& params);

// Says of each product which one comes next, and of each operator which block begins with it, after
// those that it does not wait for.
void link_ops(std::span<MegakernelOp> ops, int blocks);

struct MegakernelLaunch {
  const MegakernelOp* ops = nullptr;  // [count], the device's
  int count = 0;
  int blocks = 0;                    // megakernel_blocks()
  bool exact = false;                // as Products and AttentionLaunch
  std::uint32_t* barrier = nullptr;  // zero before the first launch; of one stream
};
void megakernel(const MegakernelLaunch& launch, Stream stream);

}  // namespace dsm::kernels::cuda
