// What the benches of the whole model share: a model, the default one if no other is named, alone
// in its group.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "worker/model/rank_model.h"

namespace dsm::model {

inline constexpr const char* kBenchModel = "models/deepseek-tiny";

class Alone final : public comm::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_gather(std::span<const float>, std::span<float>) override {}
  void gather(std::span<const float>, std::span<float>, int) override {}
  void broadcast(std::span<std::byte>, int) override {}
  void barrier() override {}
  void abort() noexcept override {}
};

// Ends the program with the reason when it cannot be loaded.
inline std::unique_ptr<RankModel> load_bench_model(
    const RankSpec& spec, int num_blocks, const std::filesystem::path& folder = kBenchModel) {
  const auto stop = [](const Error& error) {
    std::fprintf(stderr, "%s\n", error.message.c_str());
    std::exit(1);
  };
  const auto config = load_model_config(folder);
  if (!config) stop(config.error());
  auto model = RankModel::load(folder, *config, spec, {.num_blocks = num_blocks}, 2048, {});
  if (!model) stop(model.error());
  return std::move(*model);
}

}  // namespace dsm::model
