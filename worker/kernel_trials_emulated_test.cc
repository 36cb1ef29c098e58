// Trials of kernels on the emulated GPU, whose times mean nothing: each kernel is tried by what it
// is for and computes what the proven one does, in this process and in one of its own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/emulation/tensor_core.h"
#include "kernels/cuda/megakernel.h"
#include "worker/device/devices.h"
#include "worker/kernel_startup.h"

namespace dsm::worker {
namespace {

using model::TrialKind;
using model::TrialSeen;
using testing::SizeIs;

constexpr int kPrompt = 512;  // two tiles of pairs

TrialSetting setting(const char* dir) {
  TrialSetting setting;
  setting.model.config = *model::load_model_config(dir);
  setting.model.config.max_positions = 1024;
  setting.model.deterministic = false;
  setting.model.max_batch_tokens = kPrompt;
  setting.dir = dir;
  setting.capability = device::gpu_capability(device::Device::kCuda);
  setting.repeats = 1;
  setting.limits.time = Seconds(200);
  return setting;
}

// In this process.
std::vector<TrialSeen> run(const TrialSetting& setting) {
  const auto trials = model::plan_trials(setting.model, setting.capability);
  std::string told;
  const auto done = model::run_trials({setting.model, trials, 1},
                                      [&](const std::string& line) { told += line + "\n"; });
  EXPECT_TRUE(done.has_value()) << done.error().message;
  const auto read = model::read_trials(told, trials);
  EXPECT_TRUE(read.has_value()) << told;
  EXPECT_TRUE(read->ended);
  return read->seen;
}

TEST(KernelTrialsEmulatedTest, IntegersByTheKernelsForManyRowsAreNear) {
  auto with = setting("tests/goldens/families/deepseek_v2_lite");
  with.model.round_weights = kernels::DType::kInt4;
  const auto seen = run(with);
  ASSERT_THAT(seen, SizeIs(1));
  EXPECT_EQ(seen[0].kind, TrialKind::kWideIntegers);
  for (const auto& step : seen[0].steps) {
    EXPECT_GT(step.difference, 0) << "these round weights to BF16";
    EXPECT_LE(step.difference, model::bound_of(seen[0].kind)) << step.rows;
  }
}

TrialSetting in_fp8() {
  auto with = setting("tests/goldens/families/llama");
  with.model.config.quantization = model::Fp8Blocks{.rows = 128, .columns = 128};
  with.model.config.intermediate_size = 544;  // enough for pairs
  return with;
}

TEST(KernelTrialsEmulatedTest, WeightsInFp8ByTheKernelsForManyRowsAreNear) {
  const auto seen = run(in_fp8());
  ASSERT_THAT(seen, SizeIs(1));
  EXPECT_EQ(seen[0].kind, TrialKind::kWideFp8);
  for (const auto& step : seen[0].steps) {
    EXPECT_GT(step.difference, 0);
    EXPECT_LE(step.difference, model::bound_of(seen[0].kind)) << step.rows;
  }
}

TEST(KernelTrialsEmulatedTest, PairsInFp8AreNear) {
  auto with = in_fp8();
  with.model.fp8_activations = true;
  const auto seen = run(with);
  ASSERT_THAT(seen, SizeIs(1));
  EXPECT_EQ(seen[0].kind, TrialKind::kPairedFp8);
  ASSERT_THAT(seen[0].steps, SizeIs(1));
  EXPECT_GT(seen[0].steps[0].difference, 0) << "SwiGLU's exponential is another";
  EXPECT_LE(seen[0].steps[0].difference, model::bound_of(seen[0].kind));
}

TEST(KernelTrialsEmulatedTest, StepsAsOneKernelHaveTheSameBits) {
  // That every family's steps have the same bits in both modes is
  // tests/gpu/recorded_steps_test.cc's.
  struct Case {
    const char* family;
    bool deterministic;
  };
  for (const Case& its :
       {Case{"llama", true}, Case{"deepseek_v2_lite", false}, Case{"deepseek_v3", true}}) {
    SCOPED_TRACE(its.family);
    auto with = setting((std::string("tests/goldens/families/") + its.family).c_str());
    with.model.deterministic = its.deterministic;
    with.model.max_batch_tokens = kernels::cuda::kMegakernelRows;
    const auto seen = run(with);
    ASSERT_THAT(seen, SizeIs(1));
    EXPECT_EQ(seen[0].kind, TrialKind::kMegakernel);
    ASSERT_THAT(seen[0].steps, SizeIs(2));
    for (const auto& step : seen[0].steps) EXPECT_EQ(step.difference, 0) << step.rows;
  }
}

TEST(KernelTrialsEmulatedTest, ManyRowsInTheDeterministicModeHaveTheSameBits) {
  auto with = setting("tests/goldens/families/deepseek_v2_lite");
  with.model.deterministic = true;
  const auto seen = run(with);
  ASSERT_THAT(seen, SizeIs(2));
  EXPECT_EQ(seen[0].kind, TrialKind::kWideExact);
  ASSERT_THAT(seen[0].steps, SizeIs(2));
  for (const auto& step : seen[0].steps) EXPECT_EQ(step.difference, 0) << step.rows;
}

// A tensor core that adds in two ways is found out, whatever a model's own numbers show of it.
TEST(KernelTrialsEmulatedTest, ManyRowsInTheDeterministicModeAreWrongWhereAnyBitDiffers) {
  const emulation::OtherOrder falling;
  auto with = setting("tests/goldens/families/llama");
  with.model.deterministic = true;
  with.model.max_batch_tokens = 20;
  const auto seen = run(with);
  ASSERT_THAT(seen, SizeIs(2));
  EXPECT_EQ(seen[0].kind, TrialKind::kWideExact);
  EXPECT_FALSE(seen[0].steps[0].difference <= 1) << seen[0].steps[0].difference;
  EXPECT_EQ(model::judge(seen).kernels.wide_exact_from, 0);
}

// As a worker does it.
TEST(KernelTrialsEmulatedTest, AProcessOfItsOwnTriesAndIsHeard) {
  const auto with = setting("tests/goldens/families/qwen2");
  const Tried tried = try_in_child(with, model::plan_trials(with.model, with.capability));
  EXPECT_EQ(tried.problem, "");
  ASSERT_THAT(tried.seen, SizeIs(1));
  EXPECT_EQ(tried.seen[0].kind, TrialKind::kMegakernel);
  const auto kernels = choose_kernels({}, with, {});
  EXPECT_GE(kernels.megakernel_tokens, 0);
  EXPECT_LE(kernels.megakernel_tokens, device::all_kernels().megakernel_tokens);
}

}  // namespace
}  // namespace dsm::worker

int main(int argc, char** argv) {
  if (argc == 3 && argv[1] == dsm::worker::kTrialsCommand) {
    return dsm::worker::try_kernels(argv[2]);
  }
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
