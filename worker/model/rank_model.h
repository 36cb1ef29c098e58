// One rank of the model: its weights, its KV cache and the computation of a step. The graph has
// the parts that the configuration names: latent or grouped-query attention (attention.h), dense
// MLPs or mixtures of experts with shared experts (mlp.h).
//
// A row may name an adapter (adapter_store.h), whose weights are added to the model's for it alone.
//
// Unless it is loaded otherwise, a row's logits do not depend, to the last bit, on what else is in
// the batch, on how its prompt was cut into chunks, on which blocks hold its cache, on the number
// of ranks or threads, or on the instruction set (see kernels/ops.h). On a GPU it does not depend
// on the first three, and differs from a CPU's in its last digits (kernels/cuda/README.md).
//
// One thread uses a RankModel, its rank's. Ranks of a group are different objects, in one process
// or in several.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "kernels/ops.h"
#include "worker/comm/communicator.h"
#include "worker/device/devices.h"
#include "worker/engine/batch.h"
#include "worker/model/config.h"
#include "worker/model/draft_row.h"
#include "worker/model/kv_layer.h"

namespace dsm::model {

class AdapterStore;
class Checkpoint;

struct RankSpec {
  int rank = 0;
  int size = 1;  // 1, 2, 4 or 8
  device::Device device = device::Device::kCpu;
  int gpu = 0;  // as BackendSpec's, like what follows
  device::AllReduce all_reduce = device::AllReduce::kAuto;
  bool sleeps = false;
  device::KernelChoice kernels = {};
  int threads = 1;                    // of this rank, the caller's included
  const kernels::Ops* ops = nullptr;  // CPU; null: the best this processor can run
  // CPU, in the loose mode: as make_cpu_backend(). Ranks whose processors have different ones get
  // logits of a router that differ in their last bits, and may choose different experts.
  const kernels::Bf16Ops* bf16 = nullptr;
  // Ids from this one on are padding of the vocabulary: their logits are minus infinity, so they
  // are never chosen. 0: there is none. Only rank 0's counts.
  int sampled_vocab = 0;
  bool drafts = false;  // load the multi-token-prediction layer, for draft()
  // False, the loose mode: what is computed in which order is what is quickest, so a row's logits
  // may differ in their last digits with the batch, its chunks and the number of ranks.
  bool deterministic = true;
  // Each rank computes its share of the experts as a whole, not a part of each; in the loose mode.
  bool expert_parallel = false;
  // Each rank has the weights of attention whole, attends to the rows that name it (Row::rank) and
  // has a KV cache for them alone; latent attention's.
  bool data_parallel_attention = false;
  // Round what goes into products with FP8 weights to FP8 as well (activations.h).
  bool fp8_activations = false;
  // kInt8 or kInt4: matrices of attention, MLPs, embedding and head are rounded to integers at load
  // (WeightSlice::round_to); a row's logits are those of other weights then, but as reproducible.
  std::optional<kernels::DType> round_weights = {};
  // Where the adapters that rows name are found; null: no row names one. Outlives the model.
  const AdapterStore* adapters = nullptr;
  // Ranks of one process share out the comparing of files with their checksums (manifest.h).
  int verify_part = 0;
  int verify_parts = 1;
};

// What rank 0 has of a step, for the last row.logits tokens of each row, in the order of rows and
// tokens; empty on other ranks.
struct StepOutputs {
  // [n] what comes after each of them, where the row is chosen_on_device() (row_choices.h); of
  // other rows nothing is meant.
  std::span<const engine::TokenId> tokens;
  std::span<const float> logits;  // [m, vocab], of the other rows alone
};

class RankModel {
 public:
  // `progress` is called on this thread with the bytes of this rank's slice, before them those of
  // the files that it compares with the checkpoint's manifest. kInvalid: the model cannot be cut
  // so, the checkpoint does not fit the configuration, or a file is not what the manifest says;
  // kNotFound: no file; kExhausted: not enough memory.
  static Result<std::unique_ptr<RankModel>> load(
      const std::filesystem::path& dir, const ModelConfig& config, RankSpec rank, const KvSpec& kv,
      int max_batch_tokens, std::function<void(std::int64_t loaded, std::int64_t total)> progress);
  // As load(), with weights that are imagined (imagined_weights.h), of a rank alone.
  static Result<std::unique_ptr<RankModel>> imagined(const ModelConfig& config, RankSpec rank,
                                                     const KvSpec& kv, int max_batch_tokens);
  // The same rank by other kernels, with this one's weights and a cache of its own, which this one
  // outlives. There is a cache.
  std::unique_ptr<RankModel> beside(const device::KernelChoice& kernels) const;
  ~RankModel();

  // KV blocks that there is room for, once they are made their number; 0 where it was given.
  int kv_room() const;
  // Before the first step where their number was not given, and before join(): the largest steps
  // run once, so that those between ranks take no memory. A cache that is there stays, also for
  // fewer blocks than it has. kExhausted: there is no room for so many.
  Status make_cache(int blocks);

  // Between steps, of a model whose spec says that it sleeps: gives the device's memory back as
  // Backend::sleep() does, that of adapters too. After wake() and, where the ranks are several,
  // join(), it computes the same as before with an empty cache of as many blocks. Both throw
  // std::bad_alloc.
  void sleep();
  void wake();

  // Collective: the ranks of an epoch have met. Before the first forward() of it, where the device
  // is not the CPU. Throws comm::CommError. Returns what Backend::join() does, for the log.
  std::string join(comm::Communicator& comm);

  // Collective: every rank calls it with the same batch. Writes the rows' keys and values. Returns
  // on rank 0 the logits [n, vocab] of the last row.logits tokens of each row, in the order of rows
  // and tokens, and an empty span elsewhere; valid until the next call. Throws comm::CommError when
  // the group is broken (the KV cache is then undefined) and std::logic_error when the batch breaks
  // its contract (ids or sizes out of range, an adapter that is not loaded). Allocates no memory
  // once a batch of the largest shape has been seen.
  std::span<const float> forward(const engine::Batch& batch, comm::Communicator& comm);
  // As forward, but tokens are chosen on the device where they can be.
  StepOutputs choose(const engine::Batch& batch, comm::Communicator& comm);
  // As forward, but the logits of every token of every row.
  std::span<const float> forward_all(const engine::Batch& batch, comm::Communicator& comm);

  // What the multi-token-prediction layer expects to come (mtp.h); needs RankSpec::drafts.
  // Collective, after forward() of the same batch and before the next; to be called after every
  // forward(), since the layer's own cache is written here. Rank 0 says, for each row of the batch,
  // what was chosen; what the other ranks pass is not looked at. Returns on every rank `wanted`
  // tokens for each row, in the order of rows, -1 where the model's positions or the row's block
  // table end; valid until the next call. Throws as forward() does.
  std::span<const engine::TokenId> draft(const engine::Batch& batch, std::span<const DraftRow> rows,
                                         comm::Communicator& comm);

  const ModelConfig& config() const;
  // For the log: device and instruction set.
  std::string_view device() const;
  // Backend::moves(); any thread may ask once there is a cache.
  std::uint64_t moves() const;

 private:
  struct Impl;
  struct Loaded;
  explicit RankModel(std::unique_ptr<Loaded> loaded);
  static Result<std::unique_ptr<RankModel>> load_from(
      const Checkpoint& checkpoint, const ModelConfig& config, const RankSpec& rank,
      const KvSpec& kv, int max_batch_tokens,
      const std::function<void(std::int64_t loaded, std::int64_t total)>& progress);
  static Result<int> find_room(const Loaded& loaded, const KvRoom& room);
  device::Backend& backend() const;
  void build(int blocks);
  std::unique_ptr<Loaded> loaded_;
  std::unique_ptr<Impl> impl_;  // null before the cache is made
};

}  // namespace dsm::model
