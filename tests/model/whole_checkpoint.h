// A checkpoint read as a whole, to be written again with other weights, and the logits of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cpu/integers.h"
#include "kernels/cpu/pack.h"
#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {

inline TestTensors read_tensors(const std::filesystem::path& dir) {
  TestTensors tensors;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() == ".safetensors") tensors.merge(read_safetensors(entry.path()));
  }
  return tensors;
}

inline std::vector<float> values_of(const TestTensors& tensors, const std::string& name) {
  constexpr std::int64_t kBlock = 128;
  const TestTensor& tensor = tensors.at(name);
  const auto* bytes = reinterpret_cast<const std::byte*>(tensor.bytes.data());
  std::int64_t count = 1;
  for (const auto extent : tensor.shape) count *= extent;
  std::vector<float> values(static_cast<std::size_t>(count));
  if (tensor.dtype != "F8_E4M3") {
    kernels::to_float(bytes, tensor.dtype == "BF16" ? kernels::DType::kBF16 : kernels::DType::kF32,
                      count, values.data());
    return values;
  }
  const auto scales = values_of(tensors, name + "_scale_inv");
  const std::int64_t columns = tensor.shape[1];
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t block =
        i / columns / kBlock * ((columns + kBlock - 1) / kBlock) + i % columns / kBlock;
    values[static_cast<std::size_t>(i)] =
        kernels::from_e4m3(std::to_integer<std::uint8_t>(bytes[i])) *
        scales[static_cast<std::size_t>(block)];
  }
  return values;
}

inline TestTensor in_fp32(const std::vector<std::int64_t>& shape,
                          const std::vector<float>& values) {
  return {
      "F32", shape, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}};
}

// Rounded to integers as the loader does it.
inline std::vector<float> rounded(std::vector<float> values, std::int64_t columns,
                                  kernels::DType dtype) {
  constexpr std::int64_t kBlock = 128;
  for (std::size_t row = 0; row < values.size(); row += static_cast<std::size_t>(columns)) {
    for (std::int64_t at = 0; at < columns; at += kBlock) {
      const std::span<float> block(&values[row + static_cast<std::size_t>(at)],
                                   static_cast<std::size_t>(std::min(kBlock, columns - at)));
      const float scale = kernels::integer_scale(block, dtype);
      for (float& value : block) {
        value = static_cast<float>(kernels::nearest_integer(value, scale, dtype)) * scale;
      }
    }
  }
  return values;
}

inline nlohmann::json read_config(const std::filesystem::path& dir) {
  std::ifstream file(dir / "config.json");
  return nlohmann::json::parse(file);
}

inline std::vector<engine::TokenId> some_tokens(int vocab) {
  std::vector<engine::TokenId> tokens(70);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<engine::TokenId>((i * 37 + 11) % static_cast<std::size_t>(vocab));
  }
  return tokens;
}

inline std::vector<float> logits_of(const std::filesystem::path& dir, const RankSpec& spec,
                                    comm::Communicator& comm) {
  const auto model = load_checkpoint(dir.string(), spec);
  const auto tokens = some_tokens(model->config().vocab_size);
  const auto span = model->forward_all(
      {1, {make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()))}}, comm);
  return {span.begin(), span.end()};
}
inline std::vector<float> logits_of(const std::filesystem::path& dir, const RankSpec& spec) {
  NoComm comm;
  return logits_of(dir, spec, comm);
}
// Of the first of so many ranks, which gathers all of them.
inline std::vector<float> logits_of_ranks(const std::filesystem::path& dir, RankSpec spec) {
  auto comms = comm::make_thread_communicators(spec.size);
  std::vector<float> got;
  std::vector<std::thread> ranks;
  ranks.reserve(static_cast<std::size_t>(spec.size));
  for (int rank = 0; rank < spec.size; ++rank) {
    ranks.emplace_back([&, rank] {
      RankSpec own = spec;
      own.rank = rank;
      auto logits = logits_of(dir, own, *comms[static_cast<std::size_t>(rank)]);
      if (rank == 0) got = std::move(logits);
    });
  }
  for (auto& rank : ranks) rank.join();
  return got;
}

// Logits by weights in integers beside those of a checkpoint that holds the same weights in FP32: a
// row's inputs are integers of 16 bits then (kernels/cpu/integer_ops.h), so that each is off by up
// to 2^-15 of the largest of its 128. Where two experts or two positions are about as good for a
// token another one may be taken, and then that token's logits are off by more than the others.
inline void expect_near_fp32(const std::vector<float>& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  double worst = 0;
  double squares = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - wanted[i]);
    ASSERT_FALSE(std::isnan(difference)) << i;
    worst = std::max(worst, difference);
    squares += difference * difference;
  }
  EXPECT_LE(worst, 0.1);
  EXPECT_LE(std::sqrt(squares / static_cast<double>(got.size())), 0.003);
}

// The last folder of a path as the name of a test.
template <class Info>
std::string checkpoint_name(const Info& info) {
  std::string name = info.param;
  name = name.substr(name.rfind('/') + 1);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace dsm::model
