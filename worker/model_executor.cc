#include "worker/model_executor.h"

#include <new>
#include <span>
#include <string>

#include "worker/model/draft_rows.h"
#include "worker/model/rank_model.h"
#include "worker/model/row_choices.h"
#include "worker/model/row_sampler.h"

namespace dsm::worker {
namespace {

class ModelExecutor final : public group::RankExecutor {
 public:
  // `sampled_vocab`: the ids that may be chosen; 0: all. The model finds its adapters in
  // `adapters`.
  ModelExecutor(std::shared_ptr<const model::AdapterStore> adapters,
                std::unique_ptr<model::RankModel> model, int sampled_vocab, bool drafts, Logger log)
      : adapters_(std::move(adapters)),
        model_(std::move(model)),
        sampler_(vocab(), sampled_vocab > 0 ? static_cast<std::size_t>(sampled_vocab) : vocab()),
        drafts_(drafts),
        log_(std::move(log)) {}

  void join(comm::Communicator& comm) override try {
    const std::string how = model_->join(comm);
    if (comm.rank() == 0 && !how.empty()) log_.info("ranks add up", {{"by", how}});
  } catch (const std::bad_alloc&) {
    throw DeviceError("not enough memory to connect the ranks");
  }

  engine::Samples execute(const engine::Batch& batch, comm::Communicator& comm) override try {
    const model::StepOutputs outputs = model_->choose(batch, comm);
    engine::Samples samples{.id = batch.id, .samples = {}};
    if (comm.rank() == 0) choose(batch, outputs, samples);
    if (drafts_) propose(batch, samples, comm);
    return samples;
  } catch (const std::bad_alloc&) {
    throw DeviceError("not enough memory for a step of " + std::to_string(batch.token_count()) +
                      " tokens");
  }

  std::uint64_t moves() const override { return model_->moves(); }
  int kv_room() const override { return model_->kv_room(); }
  void sleep() override try { model_->sleep(); } catch (const std::bad_alloc&) {
    throw DeviceError(
        "not enough memory of the host for the weights of a rank that sleeps: raise the "
        "container's memory limit");
  }
  void wake() override try { model_->wake(); } catch (const std::bad_alloc&) {
    throw DeviceError(
        "not enough memory to wake: others have taken what the weights and the KV "
        "cache had");
  }
  void make_cache(int blocks) override try {
    if (const Status made = model_->make_cache(blocks); !made) {
      throw DeviceError(made.error().message);
    }
  } catch (const std::bad_alloc&) {
    throw DeviceError("not enough memory for " + std::to_string(blocks) + " KV blocks");
  }

 private:
  // What the device has not chosen is chosen here.
  void choose(const engine::Batch& batch, model::StepOutputs outputs, engine::Samples& samples) {
    for (const engine::Row& row : batch.rows) {
      if (row.logits == 0) continue;
      const auto positions = static_cast<std::size_t>(row.logits);
      if (model::chosen_on_device(row)) {
        samples.samples.push_back(model::sample_of(row, outputs.tokens.first(positions)));
      } else {
        const std::size_t size = positions * vocab();
        samples.samples.push_back(sampler_.choose(row, outputs.logits.first(size)));
        outputs.logits = outputs.logits.subspan(size);
      }
      outputs.tokens = outputs.tokens.subspan(positions);
    }
  }

  // Runs the model's own draft layer behind what was chosen; rank 0's samples receive the drafts.
  void propose(const engine::Batch& batch, engine::Samples& samples, comm::Communicator& comm) {
    if (comm.rank() != 0) {
      // Rank 0 says what was chosen, but every rank takes part.
      model_->draft(batch, {}, comm);
      return;
    }
    const auto rows = model::draft_rows(batch, samples);
    model::add_drafts(batch, rows, model_->draft(batch, rows, comm), samples);
  }

  std::size_t vocab() const { return static_cast<std::size_t>(model_->config().vocab_size); }

  std::shared_ptr<const model::AdapterStore> adapters_;  // outlives the model
  std::unique_ptr<model::RankModel> model_;
  model::RowSampler sampler_;
  bool drafts_;
  Logger log_;
};

// Of ranks that are all on this machine, which then have the same.
const kernels::Bf16Ops* bf16_ops(const ModelSpec& spec) {
  return spec.local_ranks < spec.ranks ? nullptr : kernels::bf16_ops();
}

}  // namespace

group::RankLoader model_loader(ModelSpec spec, Logger log) {
  return [spec = std::move(spec), log = std::move(log)](
             int rank,
             const group::LoadProgress& progress) -> Result<std::unique_ptr<group::RankExecutor>> {
    const device::BackendSpec computes{
        .device = spec.device, .threads = spec.threads_per_rank, .gpu = rank % spec.local_ranks};
    if (auto sound = device::check_gpu(computes, spec.device_check); !sound) {
      return std::unexpected(sound.error());
    }
    auto model = model::RankModel::load(
        spec.dir, spec.config,
        {.rank = rank,
         .size = spec.ranks,
         .device = spec.device,
         .gpu = rank % spec.local_ranks,
         .all_reduce = spec.all_reduce,
         .sleeps = spec.sleeps,
         .kernels = spec.kernels,
         .threads = spec.threads_per_rank,
         .ops = nullptr,
         .bf16 = bf16_ops(spec),
         .sampled_vocab = spec.sampled_vocab,
         .drafts = spec.drafts,
         .deterministic = spec.deterministic,
         .expert_parallel = spec.expert_parallel,
         .data_parallel_attention = spec.data_parallel_attention,
         .fp8_activations = spec.fp8_activations,
         .round_weights = spec.round_weights,
         .adapters = spec.adapters.get(),
         .verify_part = rank % spec.local_ranks,
         .verify_parts = spec.local_ranks},
        spec.kv, spec.max_batch_tokens, [&progress](std::int64_t loaded, std::int64_t total) {
          progress(static_cast<std::uint64_t>(loaded), static_cast<std::uint64_t>(total));
        });
    if (!model) return std::unexpected(model.error());
    log.info("weights loaded", {{"rank", rank}, {"device", (*model)->device()}});
    return std::make_unique<ModelExecutor>(spec.adapters, std::move(*model), spec.sampled_vocab,
                                           spec.drafts, log);
  };
}

}  // namespace dsm::worker
