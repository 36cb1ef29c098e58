// What a RankModel is made of: the parts that load it (rank_load.cc) and those that compute a step
// with it (rank_step.cc) share it. For them alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/model/adapter_store.h"
#include "worker/model/attention.h"
#include "worker/model/head.h"
#include "worker/model/kv_room.h"
#include "worker/model/mlp.h"
#include "worker/model/mtp.h"
#include "worker/model/padded_step.h"
#include "worker/model/rank_model.h"
#include "worker/model/resident_adapters.h"
#include "worker/model/step.h"
#include "worker/model/weights.h"

namespace dsm::model {

inline void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("batch: ") + what);
}

// What is asked of a batch: its rows' logits, those of all its tokens, or tokens.
enum class Asked : std::uint8_t { kLogits, kAllLogits, kTokens };

// A rank without a cache: what it is made of, until its Impl takes it over.
struct RankModel::Loaded {
  ModelConfig config;
  RankSpec rank;
  kernels::DType kv_type = kernels::DType::kF32;
  std::optional<KvRoom> kv_room;
  int max_tokens = 0;
  std::unique_ptr<device::Backend> backend;
  ModelWeights weights;  // in the backend's memory
  int room = 0;
};

// A rank that computes.
struct RankModel::Impl {
  Impl(const ModelConfig& model, const RankSpec& spec, const KvSpec& kv, int max_tokens,
       std::unique_ptr<device::Backend> device, ModelWeights loaded);

  void keep(const LayerWeights& w);
  void prepare(const engine::Batch& batch, Asked what);
  void add_row(const engine::Row& row);
  const AdapterWeights* adapter_of(const engine::Row& row);
  void layer(int index, const LayerWeights& w);
  bool repeats(const engine::Batch& batch, Asked what) const;
  void pad();
  Head::Wanted wanted_from(std::size_t begin) const;
  void compute();
  void finish();
  StepOutputs run(const engine::Batch& batch, Asked what, comm::Communicator& comm);
  void warm(const KvRoom& room);
  std::span<const engine::TokenId> draft(const engine::Batch& batch, std::span<const DraftRow> rows,
                                         comm::Communicator& comm);

  const ModelConfig c;
  std::unique_ptr<device::Backend> backend;
  ModelWeights weights;
  int num_blocks;
  int sampled_vocab;
  const AdapterStore* adapters;
  ResidentAdapters resident;
  Step step;
  Attention attention;
  Mlp mlp;
  Head head;
  std::optional<Mtp> mtp;
  std::vector<std::int32_t> wanted;      // tokens of the batch whose logits are asked for
  std::vector<kernels::Choice> choices;  // of each; not wanted where the logits go to the host
  std::size_t asked = 0;                 // so many of them; the others are padding
  device::RepeatKey key;                 // of a step that may be repeated; no tokens: it may not
  PaddedStep padded;
  std::vector<std::shared_ptr<const AdapterWeights>> held;  // of the rows, while they are computed
};

}  // namespace dsm::model
