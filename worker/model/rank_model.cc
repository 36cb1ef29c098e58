#include "worker/model/rank_model.h"

#include "worker/model/rank_impl.h"

namespace dsm::model {

RankModel::RankModel(std::unique_ptr<Loaded> loaded) : loaded_(std::move(loaded)) {}
RankModel::~RankModel() = default;

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
  return impl_->draft(batch, rows, comm);
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
