// The seam between the graph of a model and the device that computes it: memory, packing of
// weights, and the operators of kernels/ops.h as whole operations on that memory. `cpu` is the
// definition of the right answer; another device is held to it. One thread, its rank's, uses a
// Backend.
//
// Operators are done in the order of their calls, but may still be in work when their calls return;
// wait() returns when all are done. So there are three kinds of memory:
//   data     what only operators touch: activations, caches, weights. allocate(), reserve(); the
//            host puts values there by write() and pack_panels().
//   lists    what the host says to an operator: tokens, places, row_index, groups with their
//            slots' tokens and weights, matrices' descriptions, items, block tables, the
//            factors of quantise, choices. Anywhere the host can read; read before the call
//            returns. Those that many operators are given can be sent once: keep(), stage().
//   results  what the host reads after wait(): tokens that were chosen, and logits that were
//            copied there. allocate_shared() and share(); to the latter not within repeat().
// A router's choice is data where group_experts() makes groups of it, which are data as well: the
// host does not see them. Where the host makes them, the choice is a result and they are lists.
//
// Between steps a backend that was made for it (BackendSpec::sleeps) can sleep(): others may have
// the device's memory then. All pointers stay as they are, and what they point to is there again
// after wake().
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/choose.h"
#include "kernels/cpu/pack.h"
#include "kernels/params.h"
#include "worker/comm/communicator.h"

namespace dsm::device {

// Memory that the host and operators touch; freed with the object, at the latest before the
// backend.
using SharedMemory = std::unique_ptr<std::byte[], std::function<void(std::byte*)>>;

// What every rank of a group has of a sum.
struct RankSumParams {
  float* mine = nullptr;   // [count]; undefined afterwards
  float* parts = nullptr;  // [ranks, count] scratch memory
  std::int64_t count = 0;  // multiple of 16
  float* y = nullptr;      // [count] the sum is added to it
};

// What every rank of a group has.
struct RankGatherParams {
  const float* mine = nullptr;  // [count]
  float* parts = nullptr;       // [ranks, count] all ranks'
  std::int64_t count = 0;
};

// Columns of rows that each rank has a part of.
struct RankColumnsParams {
  float* mine = nullptr;   // [rows, width]
  float* parts = nullptr;  // [ranks, rows, width] scratch memory
  int rows = 0;
  int width = 0;
  float* y = nullptr;  // [rows, ranks * width], of rank 0 alone
};

struct List {
  const void* data = nullptr;
  std::size_t bytes = 0;
};

// Steps whose operators are the same, with the same parameters but for what stage() is given.
struct RepeatKey {
  int tokens = 0;
  int positions = 0;  // that their places stand below

  bool operator==(const RepeatKey&) const = default;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // For the log: the device and the instruction set it uses.
  virtual std::string_view name() const = 0;
  // Another number whenever operators have got on; 0: that cannot be seen. Any thread may ask.
  virtual std::uint64_t moves() const { return 0; }

  // Zeroed, aligned to 64 bytes, alive as long as the backend. Pages are taken when they are first
  // touched.
  virtual void* allocate(std::size_t bytes) = 0;
  // As allocate(), for data that need not outlive a sleep(): zeroed by wake().
  virtual void* allocate_cache(std::size_t bytes) = 0;
  // As allocate(), for lists and results.
  virtual void* allocate_shared(std::size_t bytes) = 0;
  // For results whose size is not known beforehand: not zeroed, aligned to 64 bytes.
  virtual SharedMemory share(std::size_t bytes) = 0;
  // Memory for the pieces side by side along n. Its panels are packed afterwards (pack_panels),
  // within parallel() if many are.
  virtual kernels::PackedMatrix reserve(std::span<const kernels::WeightPiece> pieces) = 0;
  // kernels::pack_panels() into what reserve() gave; within parallel(), too.
  [[nodiscard]] virtual bool pack_panels(std::span<const kernels::WeightPiece> pieces,
                                         const kernels::PackedMatrix& into, int begin, int end) = 0;
  // The host's memory is as good as data: operators reach it.
  virtual bool reaches_host() const { return false; }
  // Copies from the host to data; within parallel(), too.
  virtual void write(void* to, const void* from, std::size_t bytes) = 0;
  // Calls work(i) for each i in [0, items), in any order, on all threads of the rank; returns when
  // all are done. `work` does not throw. For loading, not for steps.
  virtual void parallel(int items, const std::function<void(int)>& work) = 0;
  // All operators called so far are done, and so is the step: what was staged is no more.
  virtual void wait() = 0;
  // As wait(), for results that the host wants in the midst of a step: what was staged stays.
  virtual void wait_within_step() { wait(); }

  // Gives the device's memory back: that of caches, and where the device has a memory of its own
  // that of all other data, which the host keeps meanwhile. While no operator is in work;
  // what is called next is wake() or the destructor. Throws std::bad_alloc where the host has no
  // room, and then nothing has changed; DeviceError where the backend was not made for it.
  virtual void sleep() = 0;
  // Throws std::bad_alloc where somebody else has the memory now. The ranks have to join() again.
  virtual void wake() = 0;

  // A list that stays as it is as long as operators are called.
  virtual void keep(List list) = 0;
  // Lists that stay as they are until the next stage() or wait(), and items whose block tables are
  // among them.
  virtual void stage(std::span<const List> lists,
                     std::span<const kernels::AttentionItem> items) = 0;
  // Calls `operators`, which calls operators and nothing else, or does what they did when repeat()
  // called them before with this key and staged lists of the same sizes: their parameters depend on
  // nothing else.
  virtual void repeat(const RepeatKey& key, const std::function<void()>& operators) = 0;
  // That repeat() does so: then steps should be padded to few keys.
  virtual bool records() const = 0;

  // Products with FP8 weights take rows in FP8 (Fp8Rows); elsewhere nobody writes or reads those.
  virtual bool takes_fp8() const { return false; }

  virtual void copy(float* to, const float* from, std::size_t count) = 0;
  virtual void clear(float* to, std::size_t count) = 0;
  virtual void embedding(const kernels::EmbeddingParams& params) = 0;
  virtual void rms_norm(const kernels::RmsNormParams& params) = 0;
  virtual void quantise(const kernels::QuantiseParams& params) = 0;
  // The same of what experts have in their slots, groups of which are data: x and y begin at slot
  // routing.tokens, rows are as many as there are slots, and factors are the slots' weights.
  virtual void quantise_slots(const kernels::QuantiseParams& params,
                              const kernels::GroupExpertsParams& routing) = 0;
  virtual void linear(const kernels::LinearParams& params) = 0;
  virtual void gate_up(const kernels::GateUpParams& params) = 0;
  virtual void row_parallel(const kernels::RowParallelParams& params) = 0;
  virtual void tree_sum(const kernels::TreeSumParams& params) = 0;

  // The ranks of an epoch have met: connects this one's device with theirs. Before the epoch's
  // first exchange between ranks. Collective. Throws comm::CommError. What was connected before is
  // so no more. For the log: how the ranks' devices add up; empty: the host does it for them.
  virtual std::string join(comm::Communicator& /*ranks*/) { return {}; }
  // Collective, with the ranks of the last join(). The same bits on all ranks.
  virtual void add_over_ranks(comm::Communicator& ranks, const RankSumParams& params) = 0;
  // Likewise.
  virtual void gather_over_ranks(comm::Communicator& ranks, const RankGatherParams& params) = 0;
  // Collective, as add_over_ranks(): to rank 0. A rank without others (kv_room.h) has no y.
  virtual void gather_columns(comm::Communicator& ranks, const RankColumnsParams& params) = 0;

  virtual void norm_heads(const kernels::NormHeadsParams& params) = 0;
  virtual void kv_write(const kernels::KvWriteParams& params) = 0;
  virtual void kv_write_heads(const kernels::KvWriteHeadsParams& params) = 0;
  virtual void latent_read(const kernels::LatentReadParams& params) = 0;
  virtual void heads_expand(const kernels::HeadsExpandParams& params) = 0;
  virtual void rope_query(const kernels::RopeQueryParams& params) = 0;
  virtual void index_write(const kernels::IndexWriteParams& params) = 0;
  // Scores and selection.
  virtual void index_select(const kernels::IndexSelectParams& params) = 0;
  virtual void attention(const kernels::AttentionParams& params) = 0;
  virtual void router(const kernels::RouterParams& params) = 0;
  virtual void group_experts(const kernels::GroupExpertsParams& params) = 0;
  // Its tokens are results.
  virtual void choose(const kernels::ChooseParams& params) = 0;
};

template <class T>
T* allocate(Backend& backend, std::size_t count) {
  return static_cast<T*>(backend.allocate(count * sizeof(T)));
}
template <class T>
T* allocate_cache(Backend& backend, std::size_t count) {
  return static_cast<T*>(backend.allocate_cache(count * sizeof(T)));
}
template <class T>
T* allocate_shared(Backend& backend, std::size_t count) {
  return static_cast<T*>(backend.allocate_shared(count * sizeof(T)));
}

// Results whose number is known only when they are wanted; keeps the memory of the largest.
class Results {
 public:
  float* at_least(Backend& backend, std::size_t count) {
    if (count > size_) {
      memory_.reset();
      memory_ = backend.share(count * sizeof(float));
      size_ = count;
    }
    return data();
  }
  float* data() const { return reinterpret_cast<float*>(memory_.get()); }

 private:
  SharedMemory memory_;
  std::size_t size_ = 0;
};

}  // namespace dsm::device
