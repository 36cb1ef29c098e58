// A rank that computes without the rest of its group: what the others would say is left as it is.
// For finding out what a step takes, whose numbers are nobody's.
#pragma once

#include "worker/comm/communicator.h"

namespace dsm::model {

class LoneRank final : public comm::Communicator {
 public:
  explicit LoneRank(int rank) : rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return 1; }
  void all_gather(std::span<const float> /*send*/, std::span<float> /*recv*/) override {}
  void gather(std::span<const float> /*send*/, std::span<float> /*recv*/, int /*root*/) override {}
  void broadcast(std::span<std::byte> /*data*/, int /*root*/) override {}
  void barrier() override {}
  void abort() noexcept override {}

 private:
  int rank_;
};

}  // namespace dsm::model
