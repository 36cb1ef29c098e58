#include "worker/model/rank_model.h"

#include <algorithm>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/model/activations.h"
#include "worker/model/adapter_store.h"
#include "worker/model/attention.h"
#include "worker/model/device_check.h"
#include "worker/model/head.h"
#include "worker/model/kv_room.h"
#include "worker/model/lone_rank.h"
#include "worker/model/manifest.h"
#include "worker/model/mlp.h"
#include "worker/model/mtp.h"
#include "worker/model/padded_step.h"
#include "worker/model/resident_adapters.h"
#include "worker/model/row_choices.h"
#include "worker/model/sampler.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("batch: ") + what);
}

// What is asked of a batch: its rows' logits, those of all its tokens, or tokens.
enum class Asked : std::uint8_t { kLogits, kAllLogits, kTokens };

WeightSlice slice_of(const RankSpec& spec) {
  return {.rank = spec.rank,
          .ranks = spec.size,
          .mtp = spec.drafts,
          .segmented = cuts_segments(spec.device, spec.deterministic),
          .expands = !spec.deterministic,
          .expert_parallel = spec.expert_parallel,
          .data_parallel_attention = spec.data_parallel_attention,
          .round_to = spec.round_weights};
}

// Compares this rank's part of the files with their checksums, if there are any; the bytes of them.
Result<std::int64_t> verify(const std::filesystem::path& dir, const Checkpoint& checkpoint,
                            const ModelConfig& config, RankSpec rank,
                            const LoadProgress& progress) {
  const auto plan =
      Verification::plan(dir, checkpoint.file_names(), rank.verify_part, rank.verify_parts);
  if (!plan) return std::unexpected(plan.error());
  if (plan->empty()) return 0;
  const auto slice = count_weights(checkpoint, config, slice_of(rank));
  if (!slice) return std::unexpected(slice.error());
  const std::int64_t total = plan->bytes() + *slice;
  const auto done = plan->run(rank.threads, [&](std::int64_t bytes) { progress(bytes, total); });
  if (!done) return std::unexpected(done.error());
  return plan->bytes();
}

std::unique_ptr<device::Backend> backend_of(const RankSpec& rank) {
  return device::make_backend({.device = rank.device,
                               .threads = rank.threads,
                               .exact = rank.deterministic,
                               .gpu = rank.gpu,
                               .all_reduce = rank.all_reduce,
                               .sleeps = rank.sleeps,
                               .ops = rank.ops});
}

}  // namespace

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

struct RankModel::Impl {
  Impl(const ModelConfig& model, const RankSpec& spec, const KvSpec& kv, int max_tokens,
       std::unique_ptr<device::Backend> device, ModelWeights loaded)
      : c(model),
        backend(std::move(device)),
        weights(std::move(loaded)),
        num_blocks(kv.num_blocks),
        sampled_vocab(spec.sampled_vocab > 0 ? spec.sampled_vocab : c.vocab_size),
        adapters(spec.adapters),
        resident(*backend, adapters != nullptr ? adapters->max_adapters() : 0,
                 adapters != nullptr ? adapters->most_bytes(spec.rank) : 0),
        step(c,
             {.rank = spec.rank,
              .ranks = spec.size,
              .threads = spec.device == device::Device::kCpu ? spec.threads : 1,
              .tokens = max_tokens,
              .adapter_rank = adapters != nullptr ? adapters->max_rank() : 0,
              .expert_parallel = spec.expert_parallel,
              .data_parallel_attention = spec.data_parallel_attention,
              .quantises = spec.fp8_activations},
             *backend),
        attention(
            make_attention(step, c.num_layers + (spec.drafts ? 1 : 0), kv, !spec.deterministic)),
        mlp(step),
        head(step, weights.head, sampled_vocab) {
    if (spec.drafts) mtp.emplace(step, weights, attention, mlp);
    wanted.reserve(static_cast<std::size_t>(max_tokens));
    choices.reserve(static_cast<std::size_t>(max_tokens));
    held.reserve(static_cast<std::size_t>(max_tokens));
    for (const LayerWeights& layer : weights.layers) keep(layer);
    if (weights.mtp) keep(weights.mtp->layer);
  }

  // Experts' descriptions are many.
  void keep(const LayerWeights& w) {
    if (w.router.n == 0) return;
    backend->keep({w.gate_up.data(), w.gate_up.size() * sizeof w.gate_up[0]});
    backend->keep({w.down.data(), w.down.size() * sizeof w.down[0]});
  }

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

const AdapterWeights* RankModel::Impl::adapter_of(const engine::Row& row) {
  if (row.adapter == engine::kNoAdapter) return nullptr;
  auto found = adapters == nullptr ? nullptr : adapters->find(row.adapter, step.rank);
  require(found != nullptr, "an adapter is not loaded");
  held.push_back(std::move(found));
  return &resident.get(held.back());
}

// Appends a row's tokens to the batch in work.
void RankModel::Impl::add_row(const engine::Row& row) {
  const auto size = static_cast<std::int64_t>(row.tokens.size());
  require(size > 0 && row.start >= 0 && row.start + size <= c.max_positions,
          "a row is empty or stands outside the model's positions");
  require(
      static_cast<std::int64_t>(row.block_table.size()) * engine::kBlockTokens >= row.start + size,
      "a block table does not cover its row");
  require(step.tokens + size <= step.max_tokens,
          "has more tokens than the scratch memory was made for");
  require(row.logits >= 0 && row.logits <= size, "a row wants more logits than it has tokens");
  for (const auto block : row.block_table) {
    require(block >= 0 && block < num_blocks, "a block is not in the cache");
  }
  step.adapted.add(adapter_of(row), step.tokens, static_cast<int>(size));
  const int last = step.runs.empty() ? 0 : step.runs.back().rank;
  require(step.attends_alone() ? row.rank >= last && row.rank < step.ranks : row.rank == 0,
          "a row is of no rank, or of one before that of another row before it");
  step.add_run(row.block_table.data(), static_cast<int>(row.block_table.size()), row.rank);
  std::int32_t position = row.start;
  for (const auto token : row.tokens) {
    require(token >= 0 && token < c.vocab_size, "a token is not in the vocabulary");
    step.add_token(token, position++);
  }
}

void RankModel::Impl::prepare(const engine::Batch& batch, Asked what) {
  step.clear();
  wanted.clear();
  choices.clear();
  held.clear();
  resident.forget_unloaded();
  for (const auto& row : batch.rows) {
    add_row(row);
    const auto size = static_cast<int>(row.tokens.size());
    require(row.logits >= 0 && row.logits <= size, "a row wants more logits than it has tokens");
    const int logits = what == Asked::kAllLogits ? size : row.logits;  // of the last tokens
    const bool chosen = what == Asked::kTokens && chosen_on_device(row);
    for (int i = step.tokens - logits; i < step.tokens; ++i) {
      wanted.push_back(i);
      choices.push_back(chosen ? choice_of(row.sampling, row.start + size - (step.tokens - i) + 1)
                               : kernels::Choice{});
    }
  }
  asked = wanted.size();
  key = {};
  if (step.tokens > 0 && repeats(batch, what)) pad();
  stage(step, attention, wanted, choices);
}

// A step of decoding that has no more in it than what is staged. Drafts follow a step as it was
// asked for, ranks wait for each other in between, and an indexer's work depends on the positions.
bool RankModel::Impl::repeats(const engine::Batch& batch, Asked what) const {
  return backend->records() && step.ranks == 1 && !mtp && !c.indexer && what != Asked::kAllLogits &&
         decodes(batch);
}

void RankModel::Impl::pad() {
  std::int32_t last = 0;
  for (int i = 0; i < step.tokens; ++i) last = std::max(last, step.places[i].position);
  key = padded_key(step.tokens, last, step.max_tokens);
  padded.pad(step, key);
  for (int i = static_cast<int>(asked); i < step.tokens; ++i) wanted.push_back(i);
  choices.resize(wanted.size());
}

void RankModel::Impl::layer(int index, const LayerWeights& w) {
  attend(step, attention, index, w);
  mlp.run(step, index, w);
}

// As many as the head takes at a time.
Head::Wanted RankModel::Impl::wanted_from(std::size_t begin) const {
  return Head::Wanted{wanted, choices}.part(begin, std::min(wanted.size(), begin + Head::kTokens));
}

void RankModel::Impl::compute() {
  backend->embedding({step.token_ids, weights.embedding, weights.embedding_dtype, step.x,
                      step.tokens, c.hidden_size});
  for (int i = 0; i < c.num_layers; ++i) layer(i, weights.layers[static_cast<std::size_t>(i)]);
  if (!wanted.empty()) head.compute(step, wanted_from(0), 0, weights.final_norm);
}

// What depends on more than the key of a repeated step: which logits go to the host, and outputs of
// tokens beyond those that the head takes at a time.
void RankModel::Impl::finish() {
  for (std::size_t begin = 0; begin < wanted.size(); begin += Head::kTokens) {
    const Head::Wanted part = wanted_from(begin);
    if (begin > 0) head.compute(step, part, begin, weights.final_norm);
    const std::size_t end = std::min(begin + part.tokens.size(), asked);
    if (begin < end) head.hand_out(step, part.part(0, end - begin));
  }
  backend->wait();  // also where nothing is wanted: the host writes the next batch's lists
}

StepOutputs RankModel::Impl::run(const engine::Batch& batch, Asked what, comm::Communicator& comm) {
  prepare(batch, what);
  if (step.tokens == 0) return {};
  step.comm = &comm;
  const auto wanted_here = std::ranges::count(choices, true, &kernels::Choice::wanted);
  head.start(step, asked - static_cast<std::size_t>(wanted_here));
  if (key.tokens > 0) {
    backend->repeat(key, [this] { compute(); });
  } else {
    compute();
  }
  finish();
  held.clear();
  step.adapted.clear();
  if (step.rank != 0) return {};
  return {.tokens = {head.chosen(), asked}, .logits = head.logits(step)};
}

RankModel::RankModel(std::unique_ptr<Loaded> loaded) : loaded_(std::move(loaded)) {}
RankModel::~RankModel() = default;

// The largest steps, so that there is all the memory that steps take. Other ranks have no part in
// it: the numbers that come out are nobody's, and what stays in the cache is as what any sequence
// leaves there. Tokens are chosen on the device, which takes more than copying logits.
void RankModel::Impl::warm(const KvRoom& room) {
  LoneRank alone(step.rank);
  for (engine::Batch& batch : largest_batches(room, step.max_tokens, num_blocks)) {
    if (step.attends_alone()) {
      for (engine::Row& row : batch.rows) row.rank = step.rank;
    }
    run(batch, Asked::kTokens, alone);
    if (key.tokens > 0) run(batch, Asked::kTokens, alone);  // recorded
  }
}

// On a trial, whose backend gives back all that it took.
Result<int> RankModel::find_room(const Loaded& loaded, const KvRoom& room) {
  Measured measured{.free = room.free_bytes(), .steps = 0};
  const int blocks = trial_blocks(loaded.max_tokens);
  Impl trial(loaded.config, loaded.rank,
             {.num_blocks = blocks,
              .dtype = loaded.kv_type,
              .past_blocks = loaded.config.max_positions / engine::kBlockTokens + 1},
             loaded.max_tokens, backend_of(loaded.rank), loaded.weights);
  trial.warm(room);
  measured.steps = measured.free - room.free_bytes() - blocks * room.bytes_per_block;
  return kv_blocks_for(room, measured);
}

int RankModel::kv_room() const {
  return loaded_->room > 0 && impl_ != nullptr ? impl_->num_blocks : loaded_->room;
}

void RankModel::build(int blocks) {
  impl_ = std::make_unique<Impl>(
      loaded_->config, loaded_->rank, KvSpec{.num_blocks = blocks, .dtype = loaded_->kv_type},
      loaded_->max_tokens, std::move(loaded_->backend), std::move(loaded_->weights));
  if (const auto& room = loaded_->kv_room; room.has_value()) impl_->warm(room.value());
}

Status RankModel::make_cache(int blocks) {
  if (impl_ != nullptr && blocks <= impl_->num_blocks) return {};
  if (impl_ != nullptr || blocks > loaded_->room) {
    return fail(ErrorKind::kExhausted,
                "the group has agreed on " + std::to_string(blocks) +
                    " KV blocks, and there is room for " +
                    std::to_string(impl_ != nullptr ? impl_->num_blocks : loaded_->room) +
                    ": something else is in the device's memory");
  }
  build(blocks);
  return {};
}

Result<std::unique_ptr<RankModel>> RankModel::load(
    const std::filesystem::path& dir, const ModelConfig& config, RankSpec rank, KvSpec kv,
    int max_batch_tokens, std::function<void(std::int64_t loaded, std::int64_t total)> progress) {
  if (auto ok = check_tensor_parallel(config, rank.size); !ok) return std::unexpected(ok.error());
  if (rank.expert_parallel) {
    auto ok = check_expert_parallel(config, rank.size, rank.deterministic);
    if (!ok) return std::unexpected(ok.error());
  }
  if (rank.data_parallel_attention) {
    if (auto ok = check_data_parallel_attention(config); !ok) return std::unexpected(ok.error());
  }
  if (auto ok = check_device(config, rank.device); !ok) {
    return std::unexpected(ok.error());
  }
  if (rank.rank < 0 || rank.rank >= rank.size || rank.threads < 1 || rank.verify_part < 0 ||
      rank.verify_part >= rank.verify_parts || kv.num_blocks < (kv.room ? 0 : 1) ||
      max_batch_tokens < 1) {
    return fail(ErrorKind::kInvalid,
                "rank " + std::to_string(rank.rank) + " of " + std::to_string(rank.size) +
                    " with " + std::to_string(rank.threads) + " threads, " +
                    std::to_string(kv.num_blocks) + " KV blocks and " +
                    std::to_string(max_batch_tokens) + " tokens per batch cannot be");
  }
  if (rank.drafts && config.mtp_layers == 0) {
    return fail(ErrorKind::kInvalid,
                "drafts need a model with num_nextn_predict_layers, this one has none");
  }
  if (rank.sampled_vocab < 0 || rank.sampled_vocab > config.vocab_size) {
    return fail(ErrorKind::kInvalid, std::to_string(rank.sampled_vocab) +
                                         " tokens to sample from are more than vocab_size " +
                                         std::to_string(config.vocab_size));
  }
  if (rank.fp8_activations) {
    if (auto ok = check_fp8_activations(config, rank.size); !ok) return std::unexpected(ok.error());
  }
  auto checkpoint = Checkpoint::open(dir);
  if (!checkpoint) return std::unexpected(checkpoint.error());
  if (!progress) progress = [](std::int64_t, std::int64_t) {};
  const auto verified = verify(dir, *checkpoint, config, rank, progress);
  if (!verified) return std::unexpected(verified.error());
  if (*verified > 0) {
    progress = [before = *verified, inner = std::move(progress)](std::int64_t loaded,
                                                                 std::int64_t total) {
      inner(before + loaded, before + total);
    };
  }
  try {
    auto backend = backend_of(rank);
    auto weights = load_weights(*checkpoint, config, slice_of(rank), *backend, progress);
    if (!weights) return std::unexpected(weights.error());
    if (rank.fp8_activations) {
      if (auto ok = check_fp8_weights(*weights); !ok) return std::unexpected(ok.error());
    }
    auto loaded = std::make_unique<Loaded>(Loaded{config, rank, kv.dtype, kv.room, max_batch_tokens,
                                                  std::move(backend), std::move(*weights)});
    if (kv.num_blocks == 0) {
      const auto room = find_room(*loaded, *kv.room);
      if (!room) return std::unexpected(room.error());
      loaded->room = *room;
    }
    std::unique_ptr<RankModel> model(new RankModel(std::move(loaded)));
    if (kv.num_blocks > 0) model->build(kv.num_blocks);
    return model;
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::kExhausted,
                "not enough memory for the weights, " + std::to_string(kv.num_blocks) +
                    " KV blocks and batches of " + std::to_string(max_batch_tokens) + " tokens");
  }
}

device::Backend& RankModel::backend() const {
  return impl_ != nullptr ? *impl_->backend : *loaded_->backend;
}

void RankModel::sleep() {
  backend().sleep();  // nothing is in work any more
}

void RankModel::wake() {
  backend().wake();
}

std::string RankModel::join(comm::Communicator& comm) {
  return impl_->backend->join(comm);
}

std::span<const float> RankModel::forward(const engine::Batch& batch, comm::Communicator& comm) {
  require(impl_ != nullptr, "there is no cache yet");
  return impl_->run(batch, Asked::kLogits, comm).logits;
}

StepOutputs RankModel::choose(const engine::Batch& batch, comm::Communicator& comm) {
  require(impl_ != nullptr, "there is no cache yet");
  return impl_->run(batch, Asked::kTokens, comm);
}

std::span<const float> RankModel::forward_all(const engine::Batch& batch,
                                              comm::Communicator& comm) {
  return impl_->run(batch, Asked::kAllLogits, comm).logits;
}

std::span<const engine::TokenId> RankModel::draft(const engine::Batch& batch,
                                                  std::span<const DraftRow> rows,
                                                  comm::Communicator& comm) {
  if (!impl_->mtp) throw std::logic_error("draft: not asked for when the model was loaded");
  Mtp& mtp = *impl_->mtp;
  Step& step = impl_->step;
  require(batch.rows.size() == step.runs.size(), "is not the one that forward() has computed");
  for (std::size_t i = 0; i < step.runs.size(); ++i) {
    const engine::Row& row = batch.rows[i];
    require(static_cast<int>(row.tokens.size()) == step.runs[i].size &&
                static_cast<int>(row.block_table.size()) == step.runs[i].blocks,
            "is not the one that forward() has computed");
    step.runs[i].block_table = row.block_table.data();
  }
  step.comm = &comm;
  return mtp.run(rows, impl_->sampled_vocab);
}

const ModelConfig& RankModel::config() const {
  return loaded_->config;
}
std::uint64_t RankModel::moves() const {
  return impl_->backend->moves();
}
std::string_view RankModel::device() const {
  return backend().name();
}

}  // namespace dsm::model
