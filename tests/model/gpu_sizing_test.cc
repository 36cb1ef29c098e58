// The formulas of sizing/ for GPUs against what the CUDA backend takes of a GPU's memory, on the
// emulated one, where each piece has memory of its own, a multiple of 256 bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "sizing/memory.h"
#include "worker/device/gpu.h"
#include "worker/model/attention.h"
#include "worker/model/head.h"
#include "worker/model/mlp.h"
#include "worker/model/mtp.h"
#include "worker/model/rank_model.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

using device::free_gpu_bytes;
using sizing::Device;

constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kAlignment = 256;
constexpr int kTokens = 40;

sizing::Shape shape_at(const std::string& dir) {
  std::ifstream file(dir + "/config.json");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto shape = sizing::parse_shape(text, dir);
  EXPECT_TRUE(shape) << shape.error().message;
  return shape.value_or(sizing::Shape{});
}

// Pieces of memory, each of which loses less than an alignment.
std::int64_t most_pieces(const ModelConfig& c) {
  return 100 + (c.num_layers + 1) * (40 + 3 * std::int64_t{c.num_heads} + 2 * c.num_experts);
}

// `taken`: with what alignment loses.
void expect_taken(std::int64_t taken, std::int64_t counted, const ModelConfig& c,
                  const char* what) {
  EXPECT_GE(taken, counted) << what;
  EXPECT_LT(taken, counted + most_pieces(c) * kAlignment) << what;
}

int bits_of(std::optional<kernels::DType> round_to) {
  if (!round_to) return 0;
  return *round_to == kernels::DType::kInt8 ? 8 : 4;
}

// A way of running a model.
struct Way {
  int ranks = 1;
  bool exact = true;
  bool drafts = false;
  bool whole_experts = false;
  bool whole_attention = false;
  std::optional<kernels::DType> round_to = {};
};

class GpuSizing : public testing::TestWithParam<const char*> {
 protected:
  GpuSizing() : dir_(GetParam()), config_(*load_model_config(dir_)), shape_(shape_at(dir_)) {}

  // Weights, and what the parts of the graph allocate, of the first rank.
  void expect_bytes(const Way& way) {
    SCOPED_TRACE(std::to_string(way.ranks) + " ranks" + (way.exact ? "" : ", loose") +
                 (way.drafts ? ", drafts" : "") + (way.whole_experts ? ", whole experts" : "") +
                 (way.whole_attention ? ", whole attention" : "") +
                 (way.round_to ? ", rounded" : ""));
    const WeightSlice slice{.ranks = way.ranks,
                            .mtp = way.drafts,
                            .segmented = cuts_segments(device::Device::kCuda, way.exact),
                            .expands = !way.exact,
                            .expert_parallel = way.whole_experts,
                            .data_parallel_attention = way.whole_attention,
                            .round_to = way.round_to};
    const sizing::WeightCut cut{.tensor = way.ranks,
                                .drafts = way.drafts,
                                .deterministic = way.exact,
                                .expert_parallel = way.whole_experts,
                                .data_parallel_attention = way.whole_attention,
                                .weight_bits = bits_of(way.round_to)};
    const auto backend =
        device::make_backend({.device = device::Device::kCuda, .exact = way.exact});
    const std::int64_t at_first = free_gpu_bytes();
    const auto checkpoint = Checkpoint::open(dir_);
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    const auto weights =
        load_weights(*checkpoint, config_, slice, *backend, [](std::int64_t, std::int64_t) {});
    ASSERT_TRUE(weights) << weights.error().message;
    const std::int64_t with_weights = free_gpu_bytes();
    expect_taken(at_first - with_weights, sizing::weight_bytes(shape_, cut, Device::kGpu), config_,
                 "weights");

    const int blocks = (config_.max_positions + 63) / 64;
    Step step(config_,
              {.ranks = way.ranks,
               .tokens = kTokens,
               .expert_parallel = way.whole_experts,
               .data_parallel_attention = way.whole_attention},
              *backend);
    Attention attention = make_attention(step, config_.num_layers + (way.drafts ? 1 : 0),
                                         {.num_blocks = blocks}, slice.expands);
    Mlp mlp(step);
    if (way.drafts) const Mtp mtp(step, *weights, attention, mlp);
    const Head head(step, weights->head, config_.vocab_size);
    const sizing::StepSize size{.batch_tokens = kTokens};
    // Of the operators nothing yet. Lists and tokens that are chosen are the host's.
    constexpr std::int64_t kHostValues = 4 * kTokens;
    const std::int64_t counted =
        sizing::scratch_bytes(shape_, cut, size, Device::kGpu) -
        sizing::operator_bytes(shape_, cut, size, Device::kGpu) +
        sizing::logit_bytes(shape_, cut, size, Device::kGpu, true) +
        blocks * sizing::kBlockTokens *
            sizing::cache_bytes_per_token(shape_, cut, sizing::KvType::kF32) -
        kHostValues * 4;
    expect_taken(with_weights - free_gpu_bytes(), counted, config_, "the graph");
  }

  const std::string dir_;
  const ModelConfig config_;
  const sizing::Shape shape_;
};

TEST_P(GpuSizing, is_what_the_backend_takes) {
  for (const int ranks : {1, 2, 8}) {
    if (!check_tensor_parallel(config_, ranks)) continue;
    for (const bool exact : {true, false}) {
      expect_bytes({.ranks = ranks, .exact = exact});
      expect_bytes({.ranks = ranks,
                    .exact = exact,
                    .round_to = exact ? kernels::DType::kInt8 : kernels::DType::kInt4});
      if (check_data_parallel_attention(config_)) {
        expect_bytes({.ranks = ranks, .exact = exact, .whole_attention = true});
      }
    }
    if (check_expert_parallel(config_, ranks, false)) {
      expect_bytes({.ranks = ranks, .exact = false, .whole_experts = true});
    }
  }
  if (config_.mtp_layers > 0) expect_bytes({.drafts = true});
}

// The largest steps, as a worker tries them before it makes its cache.
TEST_P(GpuSizing, has_room_for_what_operators_take) {
  for (const bool exact : {true, false}) {
    SCOPED_TRACE(exact);
    const sizing::WeightCut cut{.deterministic = exact};
    const sizing::StepSize size{.batch_tokens = kTokens, .sequences = 4};
    std::vector<std::int64_t> looks;
    const KvRoom room{
        .bytes_per_block =
            sizing::cache_bytes_per_token(shape_, cut, sizing::KvType::kF32) * engine::kBlockTokens,
        .longest = std::min(config_.max_positions, 256),
        .sequences = 4,
        .free_bytes = [&] {
          looks.push_back(free_gpu_bytes());
          return looks.back();
        }};
    const auto model =
        RankModel::load(dir_, config_, {.device = device::Device::kCuda, .deterministic = exact},
                        {.num_blocks = 0, .room = room}, kTokens, {});
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_EQ(looks.size(), 2U);
    const std::int64_t steps = looks[0] - looks[1] - trial_blocks(kTokens) * room.bytes_per_block;
    const std::int64_t counted = sizing::scratch_bytes(shape_, cut, size, Device::kGpu) +
                                 sizing::logit_bytes(shape_, cut, size, Device::kGpu, true);
    EXPECT_LE(steps, counted);
    // Of a model so small nearly all of it is lists, and what does not grow with the model.
    EXPECT_GE(steps, counted - sizing::operator_bytes(shape_, cut, size, Device::kGpu) + 16 * kMiB);
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GpuSizing,
                         testing::Values("models/deepseek-tiny", "tests/goldens/fp8-tiny",
                                         "tests/goldens/families/llama",
                                         "tests/goldens/families/deepseek_v2_lite",
                                         "tests/goldens/families/deepseek_v3",
                                         "tests/goldens/families/deepseek_v32"),
                         [](const auto& checkpoint) {
                           std::string name = checkpoint.param;
                           name = name.substr(name.rfind('/') + 1);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace dsm::model
