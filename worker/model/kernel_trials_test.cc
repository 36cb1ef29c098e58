// What is worth trying, what follows from what was seen, and how that is told.
#include "worker/model/kernel_trials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "worker/model/imagined_weights.h"

namespace dsm::model {
namespace {

using kernels::DType;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kHopper = "9.0";

TriedModel dense() {
  TriedModel model;
  model.config.attention = AttentionKind::kGrouped;
  model.config.hidden_size = 4096;
  model.config.intermediate_size = 14336;
  model.config.num_layers = 32;
  model.config.num_heads = 32;
  model.config.num_kv_heads = 8;
  model.config.v_head_dim = model.config.qk_rope_head_dim = 128;
  model.config.vocab_size = 128256;
  model.config.max_positions = 131072;
  model.deterministic = false;
  model.max_batch_tokens = 8192;
  return model;
}
TriedModel in_fp8(bool activations) {
  TriedModel model = dense();
  model.config.quantization = Fp8Blocks{.rows = 128, .columns = 128};
  model.fp8_activations = activations;
  return model;
}
TriedModel in_int8() {
  TriedModel model = dense();
  model.round_weights = DType::kInt8;
  return model;
}

const Trial kOneKernel{TrialKind::kMegakernel, {{1, 1}, {16, 1}}};

TEST(KernelTrialsTest, EachKindOfModelHasItsOwn) {
  EXPECT_THAT(plan_trials(dense(), kHopper), ElementsAre(kOneKernel));
  EXPECT_THAT(plan_trials(in_fp8(false), kHopper),
              ElementsAre(Trial{TrialKind::kWideFp8, {{64, 1}, {1, 2048}}}));
  EXPECT_THAT(plan_trials(in_fp8(true), kHopper),
              ElementsAre(Trial{TrialKind::kPairedFp8, {{1, 2048}}}));
  EXPECT_THAT(plan_trials(in_int8(), kHopper),
              ElementsAre(Trial{TrialKind::kWideIntegers, {{64, 1}, {1, 2048}}}));
  TriedModel stored = dense();
  stored.config.integers = IntegerWeights{.dtype = DType::kInt4};
  EXPECT_THAT(plan_trials(stored, kHopper),
              ElementsAre(Trial{TrialKind::kWideIntegers, {{64, 1}, {1, 2048}}}));
}

TEST(KernelTrialsTest, NothingIsTriedOnOtherGpus) {
  for (const char* capability : {"", "8.0", "10.0"}) {
    EXPECT_THAT(plan_trials(dense(), capability), IsEmpty());
    EXPECT_THAT(plan_trials(in_int8(), capability), IsEmpty());
  }
}

TEST(KernelTrialsTest, TheDeterministicModeHasOnlyWhatGivesTheSameBits) {
  TriedModel model = dense();
  model.deterministic = true;
  const Trial many{TrialKind::kWideExact, {{64, 1}, {1, 2048}}};
  EXPECT_THAT(plan_trials(model, kHopper), ElementsAre(many, kOneKernel));
  for (TriedModel other : {in_fp8(false), in_int8()}) {
    other.deterministic = true;
    EXPECT_THAT(plan_trials(other, kHopper), ElementsAre(many));
  }
  TriedModel rounded = in_fp8(true);
  rounded.deterministic = true;
  EXPECT_THAT(plan_trials(rounded, kHopper), IsEmpty()) << "FP8 by FP8 has other kernels";
}

TEST(KernelTrialsTest, OneKernelIsForRecordedStepsOfModelsWhoseOperatorsItHas) {
  TriedModel ranks = dense();
  ranks.ranks = 2;
  EXPECT_THAT(plan_trials(ranks, kHopper), IsEmpty());
  TriedModel drafts = dense();
  drafts.drafts = true;
  EXPECT_THAT(plan_trials(drafts, kHopper), IsEmpty());
  TriedModel experts = dense();
  experts.config.num_experts = 256;
  experts.config.experts_per_token = 8;
  experts.config.attention = AttentionKind::kLatent;
  EXPECT_THAT(plan_trials(experts, kHopper), ElementsAre(kOneKernel));
  TriedModel more = experts;
  more.config.num_experts = 257;
  EXPECT_THAT(plan_trials(more, kHopper), IsEmpty());
  more = experts;
  more.config.experts_per_token = 17;
  EXPECT_THAT(plan_trials(more, kHopper), IsEmpty());
  TriedModel sparse = experts;
  sparse.config.indexer.emplace();
  EXPECT_THAT(plan_trials(sparse, kHopper), IsEmpty());
}

TEST(KernelTrialsTest, StepsAreNoLargerThanThoseThatWillBe) {
  TriedModel model = in_int8();
  model.max_batch_tokens = 512;
  EXPECT_THAT(plan_trials(model, kHopper)[0].steps,
              ElementsAre(TrialStep{64, 1}, TrialStep{1, 512}));
  model.max_batch_tokens = 511;
  EXPECT_THAT(plan_trials(model, kHopper)[0].steps, ElementsAre(TrialStep{64, 1}));
  model.max_batch_tokens = 16;
  EXPECT_THAT(plan_trials(model, kHopper), IsEmpty());
  model = in_int8();
  model.config.max_positions = 1024;
  EXPECT_THAT(plan_trials(model, kHopper)[0].steps,
              ElementsAre(TrialStep{64, 1}, TrialStep{1, 1024}));
  TriedModel one = dense();
  one.max_batch_tokens = 1;
  EXPECT_THAT(plan_trials(one, kHopper)[0].steps, ElementsAre(TrialStep{1, 1}));
}

TEST(KernelTrialsTest, LayersAreARanksShareOfEachKind) {
  TriedModel model = dense();
  model.ranks = 16;
  const ModelConfig c = layers_of(model);
  EXPECT_EQ(c.num_layers, 2);
  EXPECT_EQ(c.num_heads, 2);
  EXPECT_EQ(c.num_kv_heads, 1);
  EXPECT_EQ(c.intermediate_size, 896);
  EXPECT_EQ(c.vocab_size, 4096);

  // Large layers are one, unless one has to follow the other.
  EXPECT_EQ(layers_of(dense()).num_layers, 2);
  EXPECT_EQ(layers_of(in_int8()).num_layers, 1);
  EXPECT_EQ(layers_of(in_fp8(true)).num_layers, 1);
  TriedModel small = in_int8();
  small.config.intermediate_size = 8960;
  EXPECT_EQ(layers_of(small).num_layers, 2);

  model.config.num_experts = 256;
  model.config.experts_per_token = 8;
  model.config.moe_intermediate_size = 2048;
  model.config.first_dense_layers = 3;
  model.config.moe_layer_freq = 4;
  model.ranks = 8;
  const ModelConfig cut = layers_of(model);
  EXPECT_EQ(cut.num_layers, 2);
  EXPECT_FALSE(cut.has_experts(0));
  EXPECT_TRUE(cut.has_experts(1));
  EXPECT_EQ(cut.num_experts, 256);
  EXPECT_EQ(cut.moe_intermediate_size, 256);

  model.config.first_dense_layers = 0;
  model.expert_parallel = model.data_parallel_attention = true;
  const ModelConfig whole = layers_of(model);
  EXPECT_EQ(whole.num_layers, 1);
  EXPECT_EQ(whole.num_experts, 32);
  EXPECT_EQ(whole.experts_per_token, 1);
  EXPECT_EQ(whole.moe_intermediate_size, 2048);
  EXPECT_EQ(whole.num_heads, 32);
}

TrialSeen seen(TrialKind kind, std::vector<StepSeen> steps) {
  return {kind, std::move(steps)};
}
device::KernelChoice chosen(const TrialSeen& trial) {
  return judge(std::span(&trial, 1)).kernels;
}

TEST(KernelTrialsTest, WithoutATrialTheKernelsAreTheProvenOnes) {
  EXPECT_EQ(judge({}).kernels, device::proven_kernels());
}

TEST(KernelTrialsTest, WhatIsAsFastIsNotTaken) {
  // 3 % is the least.
  EXPECT_TRUE(chosen(seen(TrialKind::kPairedFp8, {{2048, 0, 100, 97}})).paired_fp8);
  EXPECT_FALSE(chosen(seen(TrialKind::kPairedFp8, {{2048, 0, 100, 97.1}})).paired_fp8);
}

TEST(KernelTrialsTest, ManyRowsAreTakenFromWhereTheyAreFaster) {
  const auto from = [](double few, double many) {
    return chosen(seen(TrialKind::kWideFp8, {{64, 0.01, 100, few}, {2048, 0.01, 1000, many}}))
        .wide_fp8_from;
  };
  EXPECT_EQ(from(50, 500), 1);
  EXPECT_EQ(from(120, 500), 512);
  EXPECT_EQ(from(50, 1200), 0) << "rows in between may be slower";
  EXPECT_EQ(from(120, 1200), 0);
  EXPECT_EQ(chosen(seen(TrialKind::kWideIntegers, {{64, 0, 100, 50}})).wide_integers_from, 1);
  EXPECT_EQ(chosen(seen(TrialKind::kWideExact, {{64, 0, 100, 50}})).wide_exact_from, 1);
}

TEST(KernelTrialsTest, OneKernelIsTakenAsFarAsItIsFaster) {
  const auto tokens = [](double one, double many) {
    return chosen(seen(TrialKind::kMegakernel, {{1, 0, 100, one}, {16, 0, 100, many}}))
        .megakernel_tokens;
  };
  EXPECT_EQ(tokens(80, 80), 16);
  EXPECT_EQ(tokens(80, 100), 1);
  EXPECT_EQ(tokens(100, 80), 0);
}

TEST(KernelTrialsTest, WhatIsWrongIsNotTakenHoweverFastItIs) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const double difference : {0.07, 1.0, inf, std::numeric_limits<double>::quiet_NaN()}) {
    const auto trial =
        seen(TrialKind::kWideIntegers, {{64, 0, 100, 1}, {2048, difference, 100, 1}});
    const TrialsJudged judged = judge(std::span(&trial, 1));
    EXPECT_EQ(judged.kernels, device::proven_kernels()) << difference;
    EXPECT_THAT(judged.warnings, ElementsAre(HasSubstr("wide_integers computes 2048 rows wrong")));
  }
  // Its bits are the same, or it is wrong.
  EXPECT_EQ(chosen(seen(TrialKind::kMegakernel, {{1, 1e-7, 100, 1}})).megakernel_tokens, 0);
  EXPECT_EQ(chosen(seen(TrialKind::kWideExact, {{64, 1e-7, 100, 1}})).wide_exact_from, 0);
}

TEST(KernelTrialsTest, EachTrialIsSaidWithItsTimes) {
  const TrialSeen trials[] = {seen(TrialKind::kPairedFp8, {{2048, 0, 400, 300.4}}),
                              seen(TrialKind::kMegakernel, {{1, 0, 90, 89}})};
  EXPECT_EQ(judge(trials).text,
            "paired_fp8: 2048 rows 300 us, before 400; taken. "
            "megakernel: 1 row 89 us, before 90; not taken");
}

const std::vector<Trial> kPlanned{{TrialKind::kWideFp8, {{64, 1}, {1, 2048}}}, kOneKernel};

std::string told(std::initializer_list<std::string> lines) {
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  return all;
}
std::string wide_line() {
  return line_of(seen(TrialKind::kWideFp8, {{64, 0.25, 100, 50.5}, {2048, 0, 7, 8}}));
}

TEST(KernelTrialsTest, WhatIsWrittenIsRead) {
  const auto read =
      read_trials(told({line_of_begin(TrialKind::kWideFp8), wide_line(), line_of_end()}), kPlanned);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  ASSERT_THAT(read->seen, SizeIs(1));
  EXPECT_EQ(read->seen[0].kind, TrialKind::kWideFp8);
  ASSERT_THAT(read->seen[0].steps, SizeIs(2));
  EXPECT_EQ(read->seen[0].steps[0].difference, 0.25);
  EXPECT_EQ(read->seen[0].steps[0].tried_us, 50.5);
  EXPECT_EQ(read->seen[0].steps[1].proven_us, 7);
  EXPECT_TRUE(read->ended);
  EXPECT_EQ(read->under_way, std::nullopt);
}

TEST(KernelTrialsTest, OneThatStopsIsReadAsFarAsItCame) {
  const std::string all =
      told({line_of_begin(TrialKind::kWideFp8), wide_line(), line_of_begin(kOneKernel.kind)});
  const auto read = read_trials(all + R"({"seen":"megak)", kPlanned);
  ASSERT_TRUE(read.has_value());
  EXPECT_THAT(read->seen, SizeIs(1));
  EXPECT_EQ(read->under_way, TrialKind::kMegakernel);
  EXPECT_FALSE(read->ended);
  EXPECT_EQ(read_trials(told({line_of_failure("no \"memory\"")}), kPlanned)->failure,
            "no \"memory\"");
}

TEST(KernelTrialsTest, NumbersThatAreNoneAreTooLarge) {
  const auto trial =
      seen(TrialKind::kMegakernel, {{1, std::numeric_limits<double>::infinity(), 1, 1},
                                    {16, std::numeric_limits<double>::quiet_NaN(), 1, 1}});
  const auto read =
      read_trials(told({line_of_begin(TrialKind::kMegakernel), line_of(trial)}), kPlanned);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_THAT(judge(read->seen).warnings, SizeIs(1));
}

TEST(KernelTrialsTest, NonsenseIsRefused) {
  const std::string begin = line_of_begin(TrialKind::kWideFp8);
  const std::string end = line_of_end();
  for (const std::string& text :
       {told({"hello"}), told({"[]"}), told({"3"}), told({R"({"begin":3})"}),
        told({R"({"begin":"paired_fp8"})"}), told({R"({"begin":"magic"})"}), told({wide_line()}),
        told({begin, begin}), told({begin, line_of_begin(TrialKind::kMegakernel)}),
        told({begin, end}), told({end, end}), told({line_of_failure("x"), begin}),
        told({begin, R"({"seen":"wide_fp8","steps":[]})"}),
        told({begin, line_of(seen(TrialKind::kWideFp8, {{64, 0, 1, 1}, {64, 0, 1, 1}}))}),
        told({begin, line_of(seen(TrialKind::kWideFp8, {{64, 0, 1, 1}, {2048, 0, 0, 1}}))}),
        told({begin, R"({"seen":"wide_fp8","steps":[{"rows":"many"}]})"})}) {
    EXPECT_FALSE(read_trials(text, kPlanned).has_value()) << text;
  }
  EXPECT_TRUE(read_trials("", kPlanned).has_value());
}

TEST(KernelTrialsTest, WhatIsAskedIsRead) {
  TrialsAsked asked{in_int8(), kPlanned, 3};
  asked.model.kv_dtype = DType::kF8E4M3;
  asked.model.ranks = 4;
  asked.model.expert_parallel = true;
  asked.model.max_batch_tokens = 77;
  asked.model.threads = 5;
  const auto read = read_asked(text_of(asked, "models/deepseek-tiny"));
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(read->trials, kPlanned);
  EXPECT_EQ(read->repeats, 3);
  EXPECT_EQ(read->model.round_weights, DType::kInt8);
  EXPECT_EQ(read->model.kv_dtype, DType::kF8E4M3);
  EXPECT_EQ(read->model.ranks, 4);
  EXPECT_TRUE(read->model.expert_parallel);
  EXPECT_FALSE(read->model.deterministic);
  EXPECT_EQ(read->model.max_batch_tokens, 77);
  EXPECT_EQ(read->model.threads, 5);
  EXPECT_EQ(read->model.config.model_type, "deepseek_v3");
  EXPECT_FALSE(read_asked("{}").has_value());
  EXPECT_FALSE(read_asked(text_of(asked, "no/such/model")).has_value());
}

TEST(ImaginedWeightsTest, EveryTensorIsAsItsCheckpointWouldHaveIt) {
  ImaginedWeights weights(true);
  const auto gate = weights.get("model.layers.0.mlp.experts.3.gate_proj.weight", {64, 96});
  EXPECT_EQ(gate.dtype, DType::kF8E4M3);
  EXPECT_EQ(gate.bytes.size(), 64U * 96U);
  EXPECT_EQ(weights.get("model.layers.0.mlp.experts.7.gate_proj.weight", {64, 96}).bytes.data(),
            gate.bytes.data())
      << "experts are alike";
  const auto up = weights.get("model.layers.0.mlp.experts.3.up_proj.weight", {64, 96});
  EXPECT_FALSE(std::ranges::equal(up.bytes, gate.bytes));
  for (const std::byte b : gate.bytes) ASSERT_NE(b & std::byte{0x7f}, std::byte{0x7f});
  EXPECT_EQ(weights.get("model.layers.0.mlp.gate.weight", {8, 96}).dtype, DType::kBF16);
  EXPECT_EQ(weights.get("model.layers.0.x_scale_inv", {2, 2}).dtype, DType::kF32);
  const auto norm = weights.get("model.norm.weight", {96});
  float one = 0;
  std::memcpy(&one, norm.bytes.data() + 95 * sizeof one, sizeof one);
  EXPECT_EQ(one, 1.0F);
  // What was given stays, however much is asked for later.
  const std::vector<std::byte> before(gate.bytes.begin(), gate.bytes.end());
  EXPECT_EQ(weights.get("model.layers.0.self_attn.o_proj.weight", {4096, 4096}).bytes.size(),
            std::size_t{4096} * 4096);
  EXPECT_TRUE(std::ranges::equal(before, gate.bytes));
  const auto head = weights.get("lm_head.weight", {3, 3});
  std::uint16_t values[9];
  std::memcpy(values, head.bytes.data(), sizeof values);
  EXPECT_THAT(values, ElementsAre(0x3f80, 0, 0, 0, 0x3f80, 0, 0, 0, 0x3f80));
}

}  // namespace
}  // namespace dsm::model
