// What the tests of the whole model share: the default model on a chosen rank layout, and rows
// built by hand.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <vector>

#include "worker/model/rank_model.h"

namespace dsm::model {

inline constexpr const char* kTinyModel = "models/deepseek-tiny";
inline constexpr int kTestBlocks = 96;
inline constexpr int kTestBatchTokens = 1500;

// For groups of one: the model does not call it.
class NoComm final : public comm::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_gather(std::span<const float>, std::span<float>) override { ADD_FAILURE(); }
  void gather(std::span<const float>, std::span<float>, int) override { ADD_FAILURE(); }
  void broadcast(std::span<std::byte>, int) override { ADD_FAILURE(); }
  void barrier() override { ADD_FAILURE(); }
  void abort() noexcept override {}
};

inline std::unique_ptr<RankModel> load_checkpoint(const std::string& dir, RankSpec spec,
                                                  kernels::DType kv_dtype = kernels::DType::kF32) {
  const auto config = load_model_config(dir);
  if (!config) throw std::runtime_error(config.error().message);
  auto model = RankModel::load(dir, *config, spec, {kTestBlocks, kv_dtype}, kTestBatchTokens, {});
  if (!model) throw std::runtime_error(model.error().message);
  return std::move(*model);
}
inline std::unique_ptr<RankModel> load_tiny(RankSpec spec) {
  return load_checkpoint(kTinyModel, spec);
}

inline void expect_same_bits(std::span<const float> got, std::span<const float> wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  EXPECT_EQ(std::memcmp(got.data(), wanted.data(), got.size_bytes()), 0);
}

// Blocks first, first + step, ... enough for `tokens` positions.
inline std::vector<engine::BlockId> blocks_for(std::size_t tokens, engine::BlockId first = 0,
                                               int step = 1) {
  std::vector<engine::BlockId> table((tokens + engine::kBlockTokens - 1) / engine::kBlockTokens);
  for (auto& block : table) {
    block = first;
    first += step;
  }
  return table;
}

inline engine::Row make_row(const std::vector<engine::TokenId>& tokens, std::size_t begin,
                            std::size_t end, std::vector<engine::BlockId> table) {
  engine::Row row;
  row.start = static_cast<std::int32_t>(begin);
  row.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                    tokens.begin() + static_cast<std::ptrdiff_t>(end));
  row.block_table = std::move(table);
  row.logits = 1;
  return row;
}

struct GoldenCase {
  std::vector<engine::TokenId> tokens;
  std::vector<std::size_t> positions;         // whose logits are kept
  std::vector<std::vector<float>> logits;     // [positions][vocab]
  std::vector<engine::TokenId> continuation;  // greedy
};

// Written by tests/goldens/make_goldens.py and make_family_goldens.py.
inline std::vector<GoldenCase> load_goldens(
    const std::string& name = "tests/goldens/deepseek-tiny") {
  std::ifstream file(name + ".json");
  const auto json = nlohmann::json::parse(file);
  std::ifstream values(name + ".f32", std::ios::binary);
  const auto vocab = json["vocab"].get<std::size_t>();
  std::vector<GoldenCase> cases;
  for (const auto& entry : json["cases"]) {
    GoldenCase golden;
    entry["tokens"].get_to(golden.tokens);
    entry["positions"].get_to(golden.positions);
    entry["continuation"].get_to(golden.continuation);
    for (std::size_t i = 0; i < golden.positions.size(); ++i) {
      std::vector<float> row(vocab);
      values.read(reinterpret_cast<char*>(row.data()),
                  static_cast<std::streamsize>(vocab * sizeof(float)));
      golden.logits.push_back(std::move(row));
    }
    if (!values) throw std::runtime_error(name + ".f32 is too short");
    cases.push_back(std::move(golden));
  }
  return cases;
}

}  // namespace dsm::model
