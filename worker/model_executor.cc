#include "worker/model_executor.h"

#include "worker/model/rank_model.h"
#include "worker/model/row_sampler.h"

namespace dsm::worker {
namespace {

class ModelExecutor final : public group::RankExecutor {
 public:
  // Every token of the model may be chosen; a checkpoint with padded rows has fewer.
  explicit ModelExecutor(std::unique_ptr<model::RankModel> model)
      : model_(std::move(model)), sampler_(vocab(), vocab()) {}

  engine::Samples execute(const engine::Batch& batch, comm::Communicator& comm) override {
    const std::span<const float> logits = model_->forward(batch, comm);
    engine::Samples samples{.id = batch.id, .samples = {}};
    if (comm.rank() != 0) return samples;
    std::size_t used = 0;
    for (const engine::Row& row : batch.rows) {
      if (row.logits == 0) continue;
      const std::size_t size = static_cast<std::size_t>(row.logits) * vocab();
      samples.samples.push_back(sampler_.choose(row, logits.subspan(used, size)));
      used += size;
    }
    return samples;
  }

 private:
  std::size_t vocab() const { return static_cast<std::size_t>(model_->config().vocab_size); }

  std::unique_ptr<model::RankModel> model_;
  model::RowSampler sampler_;
};

}  // namespace

group::RankLoader model_loader(ModelSpec spec, Logger log) {
  return [spec = std::move(spec), log = std::move(log)](
             int rank,
             const group::LoadProgress& progress) -> Result<std::unique_ptr<group::RankExecutor>> {
    auto model = model::RankModel::load(spec.dir, spec.config,
                                        {.rank = rank,
                                         .size = spec.ranks,
                                         .threads = spec.threads_per_rank,
                                         .ops = nullptr,
                                         .verify_part = rank % spec.local_ranks,
                                         .verify_parts = spec.local_ranks},
                                        {.num_blocks = spec.kv_blocks}, spec.max_batch_tokens,
                                        [&progress](std::int64_t loaded, std::int64_t total) {
                                          progress(static_cast<std::uint64_t>(loaded),
                                                   static_cast<std::uint64_t>(total));
                                        });
    if (!model) return std::unexpected(model.error());
    log.info("weights loaded", {{"rank", rank}, {"device", (*model)->device()}});
    return std::make_unique<ModelExecutor>(std::move(*model));
  };
}

}  // namespace dsm::worker
