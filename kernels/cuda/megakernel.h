// A step of decoding as one kernel: the operators of a step of few rows as a list that thread
// blocks, as many as the GPU holds at a time, go through together, with barriers in between. Where
// each operator is a kernel, memory is idle while one ends and the next begins; here a block that
// has done its part asks for weights of later products, to the second cache, and waits for nothing
// but the others. The bits are those of the kernels, whose functions it calls.
//
// Products by weights in BF16 of up to 16 rows, also those of heads and of experts whose groups the
// device has made; norms, rope, writing of keys, values and latents, attention by splits of up to
// 16 (token, head) pairs; the router, its groups, and the sums of experts. megakernel_plan.h makes
// the list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

enum class MegakernelKind : std::uint8_t {
  kNorm,             // RmsNormParams: a row
  kProducts,         // MegakernelProducts: spans of a task's panel
  kKvWrite,          // KvWriteParams: a token
  kKvWriteHeads,     // KvWriteHeadsParams: a token's head
  kRopeQuery,        // RopeQueryParams: kMegakernelThreads pairs
  kAttentionSplits,  // AttentionLaunch: a split of an item
  kAttentionMerge,   // AttentionLaunch: kMegakernelThreads columns of a row of an item
  kRoute,            // RouteTokens: all of it
  kCombine,          // CombineParams: a part of a token's columns
  kCountMove,        // CountMove: all of it
};

// Of groups of experts: where the device has their weights.
struct ExpertWeights {
  const std::byte* list = nullptr;  // begins with the first group's PackedMatrix; null: no experts'
  std::int64_t step = 0;            // bytes to the next one's
};
// A product of one tile each, as products() has it, by weights of one shape. Where norm.rows > 0
// its rows are what the norm gives: each block makes them for itself.
struct MegakernelProducts {
  Products products = {};
  ProductTask task = {};  // the first; of experts with x and y at slot 0
  RmsNormParams norm = {};
  std::int32_t norm_number = 0;
  ExpertWeights experts = {};
  FewTiles tiles = {};      // of experts
  std::int64_t x_step = 0;  // from a slot's row to the next's; x_step 0: rows are named by a list
  std::int64_t y_step = 0;
};
// The router, and where groups.tokens > 0 its groups.
struct RouteTokens {
  RouterParams router = {};
  GroupExpertsParams groups = {};
  FewTiles tiles = {};
};
// As count_move().
struct CountMove {
  std::uint64_t* count = nullptr;
  std::uint64_t* seen = nullptr;
};

// Weights that a block's first unit of a product begins with.
struct AskedWeights {
  const ProductTask* tasks = nullptr;  // null: `w` alone
  ExpertWeights experts = {};
  FewTiles tiles = {};
  PackedMatrix w = {};
  std::int32_t panels = 0;
  std::int32_t spans_each = 0;
  std::int32_t units = 0;
  std::int32_t first = 0;
};
// What a warp asks for of its split of such a unit: 16 KiB, and a block 128.
inline constexpr int kAskedBytes = 16 << 10;

struct alignas(16) MegakernelOp {
  static constexpr std::size_t kBytes = 512;
  static constexpr int kAsks = 2;

  MegakernelKind kind = MegakernelKind::kNorm;
  bool waits = true;         // for all that came before, in all blocks
  bool known_early = true;   // of products: which they are is known before it has waited
  std::int32_t units = 0;    // parts of it that blocks do; of experts and of splits at most
  std::int32_t first = 0;    // which block does unit 0
  AskedWeights asks[kAsks];  // before it waits
  alignas(16) std::byte params[kBytes] = {};

  template <class T>
  void set(const T& value) {
    static_assert(sizeof(T) <= kBytes && std::is_trivially_copyable_v<T>);
    std::memcpy(params, &value, sizeof value);
  }
  template <class T>
  T get() const {
    T value;
    std::memcpy(&value, params, sizeof value);
    return value;
  }
};

inline constexpr int kMegakernelThreads = 256;
inline constexpr int kMegakernelRows = 16;  // of a product, and of an item of attention
inline constexpr int kMegakernelTasks = 256;
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

struct MegakernelLaunch {
  const MegakernelOp* ops = nullptr;  // [count], the device's
  int count = 0;
  int blocks = 0;                    // megakernel_blocks()
  bool exact = false;                // as Products and AttentionLaunch
  std::uint32_t* barrier = nullptr;  // zero before the first launch; of one stream
};
void megakernel(const MegakernelLaunch& launch, Stream stream);

}  // namespace dsm::kernels::cuda
