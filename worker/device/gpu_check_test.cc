// What the checks of a GPU find, on one that the test makes sick.
#include "worker/device/gpu_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "worker/device/cpu_backend.h"

namespace dsm::device {
namespace {

using kernels::cuda::Mismatches;
using kernels::cuda::Pattern;
using ::testing::HasSubstr;

constexpr std::int64_t kMiB = 1 << 20;

class FakeGpu final : public CheckedGpu {
 public:
  std::string_view name() const override { return called; }
  std::int64_t free_bytes() override { return free; }
  bool take(std::int64_t bytes) override {
    taken = bytes;
    return bytes <= gives;
  }
  void write(Pattern pattern) override {
    words.resize(static_cast<std::size_t>(taken / 4));
    for (std::size_t i = 0; i < words.size(); ++i) {
      words[i] = kernels::cuda::pattern_word(pattern, i) | stuck_bit(i);
    }
  }
  Mismatches compare(Pattern pattern) override {
    Mismatches found;
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i] == kernels::cuda::pattern_word(pattern, i)) continue;
      ++found.count;
      found.place_plus_one = i + 1;
      found.found = words[i];
    }
    return found;
  }
  double copied_bytes_per_second() override { return speed; }

  std::uint32_t stuck_bit(std::size_t word) const { return word == stuck_word ? 0x10U : 0; }

  std::string called = "NVIDIA H100 80GB HBM3";
  std::int64_t free = 4 * kMiB;
  std::int64_t gives = 256 * kMiB;
  std::int64_t taken = 0;
  double speed = 2700e9;
  std::size_t stuck_word = std::numeric_limits<std::size_t>::max();
  std::vector<std::uint32_t> words;
};

TEST(GpuCheck, finds_nothing_on_a_sound_gpu) {
  FakeGpu gpu;
  EXPECT_TRUE(check_memory(gpu, CheckKind::kQuick));
  EXPECT_EQ(gpu.taken, 2 * kMiB) << "half of what is free";
  EXPECT_TRUE(check_memory(gpu, CheckKind::kFull));
  EXPECT_EQ(gpu.taken, 3 * kMiB) << "nine tenths, in whole MiB";
  gpu.free = 256 * kMiB;
  EXPECT_TRUE(check_copying(gpu));
}

TEST(GpuCheck, finds_a_bit_that_is_stuck_and_says_where) {
  FakeGpu gpu;
  gpu.stuck_word = 1000;
  const Status sound = check_memory(gpu, CheckKind::kQuick);
  ASSERT_FALSE(sound);
  EXPECT_EQ(sound.error().kind, ErrorKind::kExhausted);
  EXPECT_THAT(sound.error().message, HasSubstr("memory check: 1 of"));
  EXPECT_THAT(sound.error().message, HasSubstr("at byte 4000"));
  EXPECT_THAT(sound.error().message, HasSubstr("0x00000100 was written and 0x00000110 is read"));
  EXPECT_THAT(sound.error().message, HasSubstr("--device-check off"));
}

TEST(GpuCheck, finds_memory_that_is_free_and_not_given) {
  FakeGpu gpu;
  gpu.gives = kMiB;
  gpu.free = 256 * kMiB;
  const Status sound = check_memory(gpu, CheckKind::kQuick);
  ASSERT_FALSE(sound);
  EXPECT_THAT(sound.error().message, HasSubstr("of 256 MiB that are free"));
}

TEST(GpuCheck, finds_memory_that_is_far_slower_than_the_data_sheet) {
  FakeGpu gpu;
  gpu.free = 256 * kMiB;
  gpu.speed = 1900e9;
  const Status sound = check_copying(gpu);
  ASSERT_FALSE(sound);
  EXPECT_THAT(sound.error().message, HasSubstr("moves 1900 GB/s, 3352 GB/s is what"));
  gpu.called = "a GPU of next year";
  EXPECT_TRUE(check_copying(gpu)) << "nothing is known of it";
  gpu.called = "NVIDIA H100 80GB HBM3 MIG 1g.10gb";
  EXPECT_TRUE(check_copying(gpu)) << "a part of one has a part of the bandwidth";
}

TEST(GpuCheck, knows_gpus_by_the_longest_name) {
  EXPECT_EQ(expected_bandwidth("NVIDIA H200"), 4800e9);
  EXPECT_EQ(expected_bandwidth("NVIDIA H20"), 4000e9);
  EXPECT_EQ(expected_bandwidth("NVIDIA A100-SXM4-80GB"), 2039e9);
  EXPECT_EQ(expected_bandwidth("NVIDIA L40S"), 864e9);
  EXPECT_EQ(expected_bandwidth("NVIDIA L4"), 300e9);
  EXPECT_FALSE(expected_bandwidth(""));
}

// A bit of each pattern's words is 0 in one of them and 1 in another.
TEST(GpuCheck, patterns_turn_every_bit) {
  std::uint32_t ones = 0;
  std::uint32_t zeros = 0;
  for (const Pattern pattern : kernels::cuda::kPatterns) {
    ones |= kernels::cuda::pattern_word(pattern, 77);
    zeros |= ~kernels::cuda::pattern_word(pattern, 77);
  }
  EXPECT_EQ(ones, 0xffffffffU);
  EXPECT_EQ(zeros, 0xffffffffU);
  EXPECT_NE(kernels::cuda::pattern_word(Pattern::kPlace, 5),
            kernels::cuda::pattern_word(Pattern::kPlace, 5 + (std::uint64_t{1} << 32)));
}

TEST(GpuCheck, compares_a_product_with_the_cpus) {
  const auto device = make_cpu_backend(1);
  const auto cpu = make_cpu_backend(1);
  EXPECT_TRUE(check_product(*device, *cpu));
}

TEST(GpuCheck, of_a_cpu_is_nothing) {
  EXPECT_TRUE(check_gpu({}, CheckKind::kFull));
  EXPECT_EQ(check_kind("quick"), CheckKind::kQuick);
  EXPECT_FALSE(check_kind("thorough"));
}

}  // namespace
}  // namespace dsm::device
