// What a worker does about processes that try kernels: real ones, shells that write what one might.
#include "worker/kernel_startup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::worker {
namespace {

using device::all_kernels;
using device::KernelChoice;
using device::proven_kernels;
using model::TrialKind;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kModel = "tests/goldens/families/llama";

// Of weights in INT8, on a GPU on which two kernels of it are to be tried.
TrialSetting setting(const std::string& script) {
  TrialSetting setting;
  setting.model.config = *model::load_model_config(kModel);
  setting.model.deterministic = false;
  setting.model.round_weights = kernels::DType::kInt8;
  setting.dir = kModel;
  setting.capability = "9.0";
  // What it is asked is its $0.
  setting.program = {"/bin/sh", "-c", script};
  return setting;
}

std::string echo(const std::string& line) {
  return "echo '" + line + "'; ";
}
std::string begin() {
  return echo(model::line_of_begin(TrialKind::kWideIntegers));
}
std::string seen(double few, double many) {
  return echo(
      model::line_of({TrialKind::kWideIntegers, {{64, 0.01, 100, few}, {512, 0.01, 100, many}}}));
}
std::string end() {
  return echo(model::line_of_end());
}

Tried tried(const TrialSetting& with) {
  return try_in_child(with, model::plan_trials(with.model, with.capability));
}
KernelChoice chosen(const TrialSetting& with, const KernelWish& wish = {}) {
  return choose_kernels(wish, with, {});
}

TEST(KernelStartupTest, WhatIsFasterIsTaken) {
  const auto both = setting(begin() + seen(50, 50) + end());
  EXPECT_EQ(tried(both).problem, "");
  EXPECT_EQ(chosen(both).wide_integers_from, 1);
  EXPECT_EQ(chosen(setting(begin() + seen(120, 50) + end())).wide_integers_from, 512);
  EXPECT_EQ(chosen(setting(begin() + seen(120, 120) + end())), proven_kernels());
}

TEST(KernelStartupTest, OneThatCrashesLeavesWhatIsProven) {
  const auto crashes = setting(begin() + "kill -SEGV $$");
  EXPECT_EQ(tried(crashes).problem, "was ended by SIGSEGV, while it tried wide_integers");
  EXPECT_EQ(chosen(crashes), proven_kernels());
}

TEST(KernelStartupTest, WhatWasSeenBeforeACrashCounts) {
  const auto crashes = setting(begin() + seen(50, 50) + "kill -ABRT $$");
  EXPECT_EQ(tried(crashes).problem, "was ended by SIGABRT");
  EXPECT_THAT(tried(crashes).seen, SizeIs(1));
  EXPECT_EQ(chosen(crashes).wide_integers_from, 1);
}

TEST(KernelStartupTest, OneThatHangsCostsItsDeadline) {
  auto hangs = setting(begin() + "sleep 60");
  hangs.limits.time = Millis(200);
  EXPECT_EQ(tried(hangs).problem, "was not done after 200 ms, while it tried wide_integers");
  EXPECT_EQ(chosen(hangs), proven_kernels());
}

TEST(KernelStartupTest, NonsenseAndTooMuchOfItLeaveWhatIsProven) {
  const auto babbles = setting(begin() + seen(50, 50) + "echo all is well; " + end());
  EXPECT_THAT(tried(babbles).problem, HasSubstr("wrote 'all is well'"));
  EXPECT_THAT(tried(babbles).seen, IsEmpty());
  EXPECT_EQ(chosen(babbles), proven_kernels());
  auto endless = setting(begin() + "while :; do echo; done");
  EXPECT_EQ(chosen(endless), proven_kernels());
}

TEST(KernelStartupTest, OneThatSaysWhyItCannotIsHeard) {
  const auto fails = setting(echo(model::line_of_failure("GPU: out of memory")) + "exit 1");
  EXPECT_EQ(tried(fails).problem, "GPU: out of memory");
  EXPECT_EQ(chosen(fails), proven_kernels());
  EXPECT_EQ(tried(setting("true")).problem, "ended before it was through");
}

TEST(KernelStartupTest, NothingIsStartedWhereNothingIsToBeTried) {
  // This one would be heard.
  const std::string script = begin() + seen(50, 50) + end();
  auto other_gpu = setting(script);
  other_gpu.capability = "8.0";
  EXPECT_EQ(chosen(other_gpu), KernelChoice());
  auto part = setting(script);
  part.whole_group = false;
  EXPECT_EQ(chosen(part), KernelChoice());
  EXPECT_EQ(chosen(setting(script), {.measured = false}), proven_kernels());
}

TEST(KernelStartupTest, StepsAsOneKernelAreAsOneSays) {
  auto dense = setting("exit 1");
  dense.model.round_weights.reset();
  EXPECT_EQ(chosen(dense, {.megakernel = true}).megakernel_tokens, all_kernels().megakernel_tokens);
  EXPECT_EQ(chosen(dense, {.measured = false, .megakernel = true}).megakernel_tokens,
            all_kernels().megakernel_tokens);
  dense.program.back() =
      echo(model::line_of_begin(TrialKind::kMegakernel)) +
      echo(model::line_of({TrialKind::kMegakernel, {{1, 0, 100, 50}, {16, 0, 100, 50}}})) + end();
  EXPECT_EQ(chosen(dense).megakernel_tokens, 16);
  EXPECT_EQ(chosen(dense, {.megakernel = false}).megakernel_tokens, 0);
}

TEST(KernelStartupTest, WhatIsChosenIsAMetric) {
  MetricsRegistry registry;
  KernelChoice kernels;
  kernels.wide_fp8_from = 512;
  kernels.megakernel_tokens = 16;
  tell_kernels(kernels, registry);
  EXPECT_THAT(metrics_text(registry),
              HasSubstr("dsm_gpu_kernels_info{megakernel_tokens=\"16\",paired_fp8=\"false\","
                        "wide_exact_from=\"0\","
                        "wide_fp8_from=\"512\",wide_integers_from=\"1\"} 1"));
}

// The process is this program's own where it is a worker.
TEST(KernelStartupTest, WhatItIsAskedIsItsLastArgument) {
  const auto asks =
      setting(R"(case "$0" in *'"dir":"tests/goldens/families/llama"'*) ;; *) exit 9; esac)");
  EXPECT_EQ(tried(asks).problem, "ended before it was through");
  EXPECT_EQ(try_kernels("{}"), 1);
}

}  // namespace
}  // namespace dsm::worker
