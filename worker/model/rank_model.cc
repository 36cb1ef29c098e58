#include "worker/model/rank_model.h"

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/device/cpu_backend.h"
#include "worker/model/rope.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

using device::allocate;
using kernels::Group;

void require(bool ok, const char* what) {
  if (!ok) throw std::logic_error(std::string("batch: ") + what);
}

// What a step computes with; sized once for the largest batch. T = tokens of the batch.
struct Scratch {
  std::int32_t* tokens;         // [T]
  kernels::TokenPlace* places;  // [T]
  float* x;                     // [T, hidden] the residual stream
  float* normed;                // [T, hidden]
  float* latents;               // [T, q_lora | kv_lora | rope]
  float* q_latent;              // [T, q_lora]
  float* q;                     // [T, local heads, nope | rope]
  float* query;                 // [T, local heads, kv_lora | rope]
  float* mixed;                 // [T, local heads, kv_lora]
  float* values;                // [T, local heads, v]
  float* partial;               // [T, hidden] this rank's part of a row-parallel sum
  float* parts;                 // [ranks, T, hidden]
  float* router_logits;         // [T, experts rounded up to 16]
  std::int32_t* chosen;         // [T, top_k]
  float* chosen_weights;        // [T, top_k]
  std::int32_t* slot_token;     // [T * (1 + top_k)]
  float* slot_weight;           // [T * (1 + top_k)]
  float* hidden;                // [T * (1 + top_k), widest MLP part]
  std::int64_t hidden_stride;
};

// (token, head) pairs of an attention item: all that the kernel takes when one thread works, since
// pairs of one item share what they read of the cache; fewer when there is little to share out
// between several.
int attention_rows(std::int64_t pairs, int threads) {
  if (threads == 1) return kernels::kAttentionRows;
  return static_cast<int>(
      std::clamp<std::int64_t>(pairs / (2 * threads), 4, kernels::kAttentionRows));
}

}  // namespace

struct RankModel::Impl {
  Impl(const ModelConfig& model, RankSpec spec, int most_tokens)
      : c(model),
        rank(spec),
        max_tokens(most_tokens),
        heads(share_of(model.num_heads, spec.rank, spec.size).size()),
        scale(attention_scale(model)),
        backend(device::make_cpu_backend(spec.threads,
                                         spec.ops != nullptr ? *spec.ops : kernels::best_ops())) {}

  void allocate_all(KvSpec kv);
  void prepare(const engine::Batch& batch);
  void add_attention_items(const engine::Row& row, int first_token, int rows_per_item);
  std::span<const float> run(const engine::Batch& batch, bool all, comm::Communicator& comm);
  void attention(int layer, comm::Communicator& comm);
  void mlp(int layer, comm::Communicator& comm);
  void group_by_expert();
  void add_row_parallel(kernels::RowParallelParams params, comm::Communicator& comm);
  std::span<const float> head(comm::Communicator& comm);

  ModelConfig c;
  RankSpec rank;
  int max_tokens;
  int heads;  // local
  float scale;
  std::unique_ptr<device::Backend> backend;
  ModelWeights weights;
  RopeAngles angles;
  kernels::RopeTable rope;
  std::vector<kernels::KvLayer> kv;
  int num_blocks = 0;
  Scratch s{};

  // Of the batch in work.
  int tokens = 0;
  std::vector<kernels::AttentionItem> items;
  std::vector<std::int32_t> wanted;  // tokens whose logits are asked for
  std::vector<Group> groups;         // all tokens, then each expert's slots
  // Grow to the largest number of wanted tokens seen.
  std::vector<float> wanted_hidden;    // [wanted, hidden]
  std::vector<float> local_logits;     // [wanted, local vocab]
  std::vector<float> gathered_logits;  // [ranks, wanted, local vocab]
  std::vector<float> logits;           // [wanted, vocab]
};

void RankModel::Impl::allocate_all(KvSpec spec) {
  num_blocks = spec.num_blocks;
  const auto slots = static_cast<std::size_t>(num_blocks) * engine::kBlockTokens;
  const auto latent = static_cast<std::size_t>(c.kv_lora_rank);
  const auto rope_dim = static_cast<std::size_t>(c.qk_rope_head_dim);
  for (int i = 0; i < c.num_layers; ++i) {
    kv.push_back({allocate<float>(*backend, slots * (latent + rope_dim)),
                  allocate<float>(*backend, slots * latent), c.kv_lora_rank, c.qk_rope_head_dim});
  }
  angles = rope_angles(c);
  rope = {angles.cos.data(), angles.sin.data(), c.qk_rope_head_dim / 2};

  const auto t = static_cast<std::size_t>(max_tokens);
  const auto h = static_cast<std::size_t>(heads);
  const auto hidden = static_cast<std::size_t>(c.hidden_size);
  const auto top_k = static_cast<std::size_t>(c.experts_per_token);
  const auto floats = [&](std::size_t count) { return allocate<float>(*backend, count); };
  s.tokens = allocate<std::int32_t>(*backend, t);
  s.places = allocate<kernels::TokenPlace>(*backend, t);
  s.x = floats(t * hidden);
  s.normed = floats(t * hidden);
  s.latents = floats(t * static_cast<std::size_t>(weights.layers[0].latents.n));
  s.q_latent = floats(t * static_cast<std::size_t>(c.q_lora_rank));
  s.q = floats(t * h * static_cast<std::size_t>(c.qk_head_dim()));
  s.query = floats(t * h * (latent + rope_dim));
  s.mixed = floats(t * h * latent);
  s.values = floats(t * h * static_cast<std::size_t>(c.v_head_dim));
  s.partial = floats(t * hidden);
  s.parts = rank.size > 1 ? floats(t * hidden * static_cast<std::size_t>(rank.size)) : nullptr;
  s.router_logits = floats(t * static_cast<std::size_t>(kernels::round_up(c.num_experts, 16)));
  s.chosen = allocate<std::int32_t>(*backend, t * top_k);
  s.chosen_weights = floats(t * top_k);
  s.slot_token = allocate<std::int32_t>(*backend, t * (1 + top_k));
  s.slot_weight = floats(t * (1 + top_k));
  const int widest =
      std::max({c.intermediate_size, c.shared_width(), c.moe_intermediate_size}) / rank.size;
  s.hidden_stride = kernels::round_up(widest, 32);
  s.hidden = floats(t * (1 + top_k) * static_cast<std::size_t>(s.hidden_stride));
  items.reserve(t * h);
  wanted.reserve(t);
  groups.resize(1 + static_cast<std::size_t>(c.num_experts));
}

void RankModel::Impl::add_attention_items(const engine::Row& row, int first_token,
                                          int rows_per_item) {
  const int begin = first_token * heads;
  const int end = begin + static_cast<int>(row.tokens.size()) * heads;
  for (int at = begin; at < end; at += rows_per_item) {
    items.push_back({at, std::min(end, at + rows_per_item), row.block_table.data()});
  }
}

void RankModel::Impl::prepare(const engine::Batch& batch) {
  tokens = 0;
  items.clear();
  std::int64_t pairs = 0;
  for (const auto& row : batch.rows) pairs += static_cast<std::int64_t>(row.tokens.size()) * heads;
  require(pairs <= std::int64_t{max_tokens} * heads,
          "has more tokens than the scratch memory was made for");
  const int rows_per_item = attention_rows(pairs, rank.threads);
  for (const auto& row : batch.rows) {
    const auto size = static_cast<std::int64_t>(row.tokens.size());
    require(size > 0 && row.start >= 0 && row.start + size <= c.max_positions,
            "a row is empty or stands outside the model's positions");
    require(static_cast<std::int64_t>(row.block_table.size()) * engine::kBlockTokens >=
                row.start + size,
            "a block table does not cover its row");
    require(row.logits >= 0 && row.logits <= size, "a row wants more logits than it has tokens");
    for (const auto block : row.block_table) {
      require(block >= 0 && block < num_blocks, "a block is not in the cache");
    }
    add_attention_items(row, tokens, rows_per_item);
    for (std::int64_t i = 0; i < size; ++i) {
      const auto token = row.tokens[static_cast<std::size_t>(i)];
      require(token >= 0 && token < c.vocab_size, "a token is not in the vocabulary");
      const auto position = static_cast<std::int32_t>(row.start + i);
      s.tokens[tokens] = token;
      s.places[tokens] = {
          position, row.block_table[static_cast<std::size_t>(position / engine::kBlockTokens)]};
      ++tokens;
    }
  }
  // The first group, of the shared expert or the dense MLP, holds every token with weight one.
  for (int i = 0; i < tokens; ++i) {
    s.slot_token[i] = i;
    s.slot_weight[i] = 1.0F;
  }
}

// x += the sum over all ranks' segments.
void RankModel::Impl::add_row_parallel(kernels::RowParallelParams params,
                                       comm::Communicator& comm) {
  params.tokens = tokens;
  params.token = s.slot_token;
  params.ldy = c.hidden_size;
  if (rank.size == 1) {
    params.residual = s.x;
    params.y = s.x;
    backend->row_parallel(params);
    return;
  }
  params.y = s.partial;
  backend->row_parallel(params);
  const auto count = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(c.hidden_size);
  comm.all_gather({s.partial, count}, {s.parts, count * static_cast<std::size_t>(rank.size)});
  backend->tree_sum({s.parts, rank.size, static_cast<std::int64_t>(count), s.x, s.x});
}

void RankModel::Impl::attention(int layer, comm::Communicator& comm) {
  const LayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  const auto eps = static_cast<float>(c.rms_eps);
  const int latent = c.kv_lora_rank;
  const int qk = c.qk_head_dim();
  const int query_dim = latent + c.qk_rope_head_dim;
  const std::int64_t lda = w.latents.n;
  backend->rms_norm({s.x, c.hidden_size, nullptr, w.attention_norm, s.normed, c.hidden_size, tokens,
                     c.hidden_size, eps});
  backend->linear({.x = s.normed,
                   .ldx = c.hidden_size,
                   .w = &w.latents,
                   .y = s.latents,
                   .ldy = lda,
                   .rows = tokens});
  backend->rms_norm(
      {s.latents, lda, nullptr, w.q_norm, s.q_latent, c.q_lora_rank, tokens, c.q_lora_rank, eps});
  backend->kv_write({s.latents + c.q_lora_rank, lda, w.kv_norm, s.places,
                     kv[static_cast<std::size_t>(layer)], rope, tokens, eps});
  backend->linear({.x = s.q_latent,
                   .ldx = c.q_lora_rank,
                   .w = &w.q_b,
                   .y = s.q,
                   .ldy = heads * qk,
                   .rows = tokens});
  // Absorbed: the query goes to the latent's space, so keys are never expanded.
  backend->linear({.x = s.q,
                   .ldx = heads * qk,
                   .x_step = qk,
                   .w = w.key_up.data(),
                   .y = s.query,
                   .ldy = heads * query_dim,
                   .y_step = query_dim,
                   .rows = tokens,
                   .batch = heads});
  backend->rope_query(
      {s.q, qk, c.qk_nope_head_dim, s.query, query_dim, latent, s.places, rope, tokens, heads});
  backend->attention({s.query, s.mixed, s.places, items.data(), static_cast<int>(items.size()),
                      heads, kv[static_cast<std::size_t>(layer)], scale});
  backend->linear({.x = s.mixed,
                   .ldx = heads * latent,
                   .x_step = latent,
                   .w = w.value_up.data(),
                   .y = s.values,
                   .ldy = heads * c.v_head_dim,
                   .y_step = c.v_head_dim,
                   .rows = tokens,
                   .batch = heads});
  groups[0] = {0, tokens};
  add_row_parallel({.h = s.values,
                    .ldh = heads * c.v_head_dim,
                    .groups = groups.data(),
                    .w = &w.output,
                    .group_count = 1},
                   comm);
}

// Sorts (token, choice) pairs by expert, tokens rising within one.
void RankModel::Impl::group_by_expert() {
  for (auto& group : groups) group.end = 0;
  const int pairs = tokens * c.experts_per_token;
  for (int i = 0; i < pairs; ++i) ++groups[static_cast<std::size_t>(1 + s.chosen[i])].end;
  int at = tokens;
  groups[0] = {0, tokens};
  for (std::size_t g = 1; g < groups.size(); ++g) {
    const int count = groups[g].end;
    groups[g] = {at, at};
    at += count;
  }
  for (int i = 0; i < pairs; ++i) {
    const int slot = groups[static_cast<std::size_t>(1 + s.chosen[i])].end++;
    s.slot_token[slot] = i / c.experts_per_token;
    s.slot_weight[slot] = s.chosen_weights[i];
  }
}

void RankModel::Impl::mlp(int layer, comm::Communicator& comm) {
  const LayerWeights& w = weights.layers[static_cast<std::size_t>(layer)];
  backend->rms_norm({s.x, c.hidden_size, nullptr, w.mlp_norm, s.normed, c.hidden_size, tokens,
                     c.hidden_size, static_cast<float>(c.rms_eps)});
  if (w.router.n > 0) {
    const std::int64_t ld = kernels::round_up(c.num_experts, 16);
    backend->linear({.x = s.normed,
                     .ldx = c.hidden_size,
                     .w = &w.router,
                     .y = s.router_logits,
                     .ldy = ld,
                     .rows = tokens});
    backend->router({s.router_logits, ld, w.router_bias, tokens, c.num_experts, c.num_groups,
                     c.topk_groups, c.experts_per_token, c.normalise_topk,
                     static_cast<float>(c.routed_scale), s.chosen, s.chosen_weights});
    group_by_expert();
  } else {
    groups[0] = {0, tokens};
  }
  const auto count = static_cast<int>(w.gate_up.size());
  backend->gate_up({s.normed, c.hidden_size, s.slot_token, s.slot_weight, groups.data(),
                    w.gate_up.data(), count, s.hidden, s.hidden_stride});
  add_row_parallel({.h = s.hidden,
                    .ldh = s.hidden_stride,
                    .groups = groups.data(),
                    .w = w.down.data(),
                    .group_count = count},
                   comm);
}

std::span<const float> RankModel::Impl::head(comm::Communicator& comm) {
  const auto n = wanted.size();
  const auto local = static_cast<std::size_t>(weights.head.n);
  const auto vocab = static_cast<std::size_t>(c.vocab_size);
  const bool root = rank.rank == 0;
  const auto grow = [](std::vector<float>& to, std::size_t size) {
    to.resize(std::max(to.size(), size));
  };
  grow(wanted_hidden, n * static_cast<std::size_t>(c.hidden_size));
  if (root) grow(logits, n * vocab);
  float* mine = logits.data();
  if (rank.size > 1) {
    grow(local_logits, n * local);
    mine = local_logits.data();
  }
  backend->rms_norm({s.x, c.hidden_size, wanted.data(), weights.final_norm, wanted_hidden.data(),
                     c.hidden_size, static_cast<int>(n), c.hidden_size,
                     static_cast<float>(c.rms_eps)});
  backend->linear({.x = wanted_hidden.data(),
                   .ldx = c.hidden_size,
                   .w = &weights.head,
                   .y = mine,
                   .ldy = static_cast<std::int64_t>(local),
                   .rows = static_cast<int>(n)});
  if (rank.size > 1) {
    if (root) grow(gathered_logits, n * vocab);
    comm.gather({mine, n * local},
                root ? std::span(gathered_logits).first(n * vocab) : std::span<float>(), 0);
    if (!root) return {};
    for (std::size_t r = 0; r < static_cast<std::size_t>(rank.size); ++r) {
      for (std::size_t i = 0; i < n; ++i) {
        std::copy_n(gathered_logits.data() + (r * n + i) * local, local,
                    logits.data() + i * vocab + r * local);
      }
    }
  }
  return std::span<const float>(logits).first(n * vocab);
}

std::span<const float> RankModel::Impl::run(const engine::Batch& batch, bool all,
                                            comm::Communicator& comm) {
  prepare(batch);
  wanted.clear();
  int token = 0;
  for (const auto& row : batch.rows) {
    const int last = token + static_cast<int>(row.tokens.size()) - 1;
    for (; token <= last; ++token) {
      if (all || token > last - row.logits) wanted.push_back(token);
    }
  }
  if (tokens == 0) return {};
  backend->embedding(
      {s.tokens, weights.embedding, weights.embedding_dtype, s.x, tokens, c.hidden_size});
  for (int i = 0; i < c.num_layers; ++i) {
    attention(i, comm);
    mlp(i, comm);
  }
  return wanted.empty() ? std::span<const float>() : head(comm);
}

RankModel::RankModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RankModel::~RankModel() = default;

Result<std::unique_ptr<RankModel>> RankModel::load(
    const std::filesystem::path& dir, const ModelConfig& config, RankSpec rank, KvSpec kv,
    int max_batch_tokens, std::function<void(std::int64_t loaded, std::int64_t total)> progress) {
  if (auto ok = check_tensor_parallel(config, rank.size); !ok) return std::unexpected(ok.error());
  if (rank.rank < 0 || rank.rank >= rank.size || rank.threads < 1 || kv.num_blocks < 1 ||
      max_batch_tokens < 1) {
    return fail(ErrorKind::kInvalid,
                "rank " + std::to_string(rank.rank) + " of " + std::to_string(rank.size) +
                    " with " + std::to_string(rank.threads) + " threads, " +
                    std::to_string(kv.num_blocks) + " KV blocks and " +
                    std::to_string(max_batch_tokens) + " tokens per batch cannot be");
  }
  auto checkpoint = Checkpoint::open(dir);
  if (!checkpoint) return std::unexpected(checkpoint.error());
  try {
    auto impl = std::make_unique<Impl>(config, rank, max_batch_tokens);
    if (!progress) progress = [](std::int64_t, std::int64_t) {};
    auto weights =
        load_weights(*checkpoint, config, rank.rank, rank.size, *impl->backend, progress);
    if (!weights) return std::unexpected(weights.error());
    impl->weights = std::move(*weights);
    impl->allocate_all(kv);
    return std::unique_ptr<RankModel>(new RankModel(std::move(impl)));
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::kExhausted,
                "not enough memory for the weights, " + std::to_string(kv.num_blocks) +
                    " KV blocks and batches of " + std::to_string(max_batch_tokens) + " tokens");
  }
}

std::span<const float> RankModel::forward(const engine::Batch& batch, comm::Communicator& comm) {
  return impl_->run(batch, false, comm);
}

std::span<const float> RankModel::forward_all(const engine::Batch& batch,
                                              comm::Communicator& comm) {
  return impl_->run(batch, true, comm);
}

const ModelConfig& RankModel::config() const {
  return impl_->c;
}
std::string_view RankModel::device() const {
  return impl_->backend->name();
}

std::int64_t kv_bytes_per_token(const ModelConfig& c) {
  return std::int64_t{c.num_layers} * (2 * c.kv_lora_rank + c.qk_rope_head_dim) *
         static_cast<std::int64_t>(sizeof(float));
}

}  // namespace dsm::model
