// How a rank comes to be: what it is asked for is checked, its part of the checkpoint loaded, and a
// cache made for as many blocks as there is room for.
#include <new>

#include "worker/model/activations.h"
#include "worker/model/device_check.h"
#include "worker/model/imagined_weights.h"
#include "worker/model/manifest.h"
#include "worker/model/rank_impl.h"

namespace dsm::model {
namespace {

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
                               .kernels = rank.kernels,
                               .ops = rank.ops,
                               .bf16 = rank.bf16});
}

// kInvalid: the model cannot be cut or computed so.
Status check_spec(const ModelConfig& config, const RankSpec& rank, const KvSpec& kv,
                  int max_batch_tokens) {
  if (auto ok = check_tensor_parallel(config, rank.size); !ok) return ok;
  if (rank.expert_parallel) {
    auto ok = check_expert_parallel(config, rank.size, rank.deterministic);
    if (!ok) return ok;
  }
  if (rank.data_parallel_attention) {
    if (auto ok = check_data_parallel_attention(config); !ok) return ok;
  }
  if (auto ok = check_device(config, rank.device); !ok) return ok;
  if (auto ok = check_rounding(config.integers, rank.round_weights); !ok) return ok;
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
  if (rank.fp8_activations) return check_fp8_activations(config, rank.size);
  return {};
}

}  // namespace

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
    const std::filesystem::path& dir, const ModelConfig& config, RankSpec rank, const KvSpec& kv,
    int max_batch_tokens, std::function<void(std::int64_t loaded, std::int64_t total)> progress) {
  if (auto ok = check_spec(config, rank, kv, max_batch_tokens); !ok) {
    return std::unexpected(ok.error());
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
  return load_from(*checkpoint, config, rank, kv, max_batch_tokens, progress);
}

Result<std::unique_ptr<RankModel>> RankModel::imagined(const ModelConfig& config, RankSpec rank,
                                                       const KvSpec& kv, int max_batch_tokens) {
  if (auto ok = check_spec(config, rank, kv, max_batch_tokens); !ok) {
    return std::unexpected(ok.error());
  }
  ImaginedWeights weights(config.quantization.has_value());
  const auto checkpoint =
      Checkpoint::imagined([&](std::string_view name, std::initializer_list<std::int64_t> shape) {
        return weights.get(name, shape);
      });
  const LoadProgress nobody = [](std::int64_t, std::int64_t) {};
  return load_from(checkpoint, config, rank, kv, max_batch_tokens, nobody);
}

std::unique_ptr<RankModel> RankModel::beside(const device::KernelChoice& kernels) const {
  RankSpec rank = loaded_->rank;
  rank.kernels = kernels;
  std::unique_ptr<RankModel> other(new RankModel(
      std::make_unique<Loaded>(Loaded{loaded_->config, rank, loaded_->kv_type, std::nullopt,
                                      loaded_->max_tokens, backend_of(rank), impl_->weights})));
  other->build(impl_->num_blocks);
  return other;
}

Result<std::unique_ptr<RankModel>> RankModel::load_from(const Checkpoint& checkpoint,
                                                        const ModelConfig& config,
                                                        const RankSpec& rank, const KvSpec& kv,
                                                        int max_batch_tokens,
                                                        const LoadProgress& progress) {
  try {
    auto backend = backend_of(rank);
    auto weights = load_weights(checkpoint, config, slice_of(rank), *backend, progress);
    if (!weights) return std::unexpected(weights.error());
    if (rank.fp8_activations) {
      if (auto ok = check_fp8_weights(*weights); !ok) return std::unexpected(ok.error());
    }
    auto loaded = std::make_unique<Loaded>(Loaded{config, rank, kv.dtype, kv.room, max_batch_tokens,
                                                  std::move(backend), std::move(*weights)});
    if (const auto& asked = kv.room; kv.num_blocks == 0 && asked) {
      const auto room = find_room(*loaded, *asked);
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

}  // namespace dsm::model
