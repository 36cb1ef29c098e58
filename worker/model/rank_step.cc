// A step of one rank: the batch's rows are checked and staged, the layers computed in their order,
// and what was asked for handed out.
#include <algorithm>

#include "worker/model/lone_rank.h"
#include "worker/model/rank_impl.h"
#include "worker/model/row_choices.h"
#include "worker/model/sampler.h"

namespace dsm::model {

RankModel::Impl::Impl(const ModelConfig& model, const RankSpec& spec, const KvSpec& kv,
                      int max_tokens, std::unique_ptr<device::Backend> device, ModelWeights loaded)
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
            .quantises = spec.fp8_activations,
            .integer_rows_from = spec.kernels.wide_from(kernels::DType::kInt8, false)},
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
void RankModel::Impl::keep(const LayerWeights& w) {
  if (w.router.n == 0) return;
  backend->keep({w.gate_up.data(), w.gate_up.size() * sizeof w.gate_up[0]});
  backend->keep({w.down.data(), w.down.size() * sizeof w.down[0]});
}

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
// asked for, rows of a rank's own are another number in each step, and an indexer's work depends on
// the positions.
bool RankModel::Impl::repeats(const engine::Batch& batch, Asked what) const {
  return backend->records() && !step.attends_alone() && !mtp && !c.indexer &&
         what != Asked::kAllLogits && decodes(batch);
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
                      step.tokens, c.hidden_size, weights.embedding_scales});
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

std::span<const engine::TokenId> RankModel::Impl::draft(const engine::Batch& batch,
                                                        std::span<const DraftRow> rows,
                                                        comm::Communicator& comm) {
  if (!mtp) throw std::logic_error("draft: not asked for when the model was loaded");
  require(batch.rows.size() == step.runs.size(), "is not the one that forward() has computed");
  for (std::size_t i = 0; i < step.runs.size(); ++i) {
    const engine::Row& row = batch.rows[i];
    require(static_cast<int>(row.tokens.size()) == step.runs[i].size &&
                static_cast<int>(row.block_table.size()) == step.runs[i].blocks,
            "is not the one that forward() has computed");
    step.runs[i].block_table = row.block_table.data();
  }
  step.comm = &comm;
  return mtp->run(rows, sampled_vocab);
}

}  // namespace dsm::model
