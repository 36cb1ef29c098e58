// The library of emulated GPUs (kernels/cuda/emulation/nvml), loaded and read as NVIDIA's is: what
// is known of GPUs when nothing but a file says how they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "worker/health/gpus.h"

namespace dsm::health {
namespace {

using ::testing::HasSubstr;

constexpr const char* kFirst = "0000:01:00.0";
constexpr const char* kSecond = "0000:02:00.0";

struct EmulatedNvml : ::testing::Test {
  EmulatedNvml()
      : folder(::testing::TempDir() + "emulated-nvml-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::create_directory(folder);
    setenv("DSM_EMULATED_NVML", folder.c_str(), 1);
  }
  ~EmulatedNvml() override {
    unsetenv("DSM_EMULATED_NVML");
    std::filesystem::remove_all(folder);
  }
  void say(const std::string& bus, const std::string& lines) const {
    std::ofstream(folder + "/" + bus, std::ios::app) << lines;
  }
  Result<std::unique_ptr<Gpus>> open(const std::vector<std::string>& buses) const {
    auto api = nvml::load(DSM_EMULATED_NVML_LIBRARY);
    if (!api) return std::unexpected(api.error());
    return Gpus::open(std::move(*api), buses);
  }

  std::string folder;
};

TEST_F(EmulatedNvml, tells_what_the_file_says_last_and_else_that_the_gpu_is_well) {
  say(kFirst,
      "minor 3\nutilisation 87\nmemory_used 1000\ntemperature 61\npower 412500\necc_corrected 7\n"
      "rows_uncorrected 2\nrow_pending 1\nclock_reasons 32\nlinks_up 17\nlink_errors 2\n");
  const auto gpus = open({kFirst});
  ASSERT_TRUE(gpus) << gpus.error().message;
  Reading now = (*gpus)->read(0);
  EXPECT_EQ(now.device, "GPU 3");
  EXPECT_EQ(now.utilisation_percent, 87U);
  EXPECT_EQ(now.memory_used, 1000U);
  EXPECT_EQ(now.memory_total, 80ULL << 30);
  EXPECT_EQ(now.temperature_celsius, 61U);
  EXPECT_EQ(now.power_milliwatts, 412'500U);
  EXPECT_EQ(now.sm_clock_mhz, 1980U);
  EXPECT_EQ(now.memory_clock_mhz, 2619U);
  EXPECT_EQ(now.throttle, kThermal);
  EXPECT_EQ(now.ecc_corrected, 7U);
  EXPECT_EQ(now.ecc_uncorrected, 0U);
  EXPECT_EQ(now.rows, (RemappedRows{.uncorrected = 2, .pending = true}));
  EXPECT_EQ(now.links, 17U);
  EXPECT_EQ(now.link_errors, 17U * 3U * 2U);
  EXPECT_FALSE(now.lost);
  say(kFirst, "temperature 90\nrow_pending -\nlinks -\n");
  now = (*gpus)->read(0);
  EXPECT_EQ(now.temperature_celsius, 90U);
  EXPECT_FALSE(now.rows);
  EXPECT_FALSE(now.links);
}

TEST_F(EmulatedNvml, loses_a_gpu_or_has_it_ask_for_a_reset) {
  say(kFirst, "reset_required 1\n");
  say(kSecond, "");
  const auto gpus = open({kFirst, kSecond});
  ASSERT_TRUE(gpus) << gpus.error().message;
  EXPECT_TRUE((*gpus)->read(0).needs_reset);
  EXPECT_FALSE((*gpus)->read(1).lost);
  say(kSecond, "lost 1\n");
  EXPECT_TRUE((*gpus)->read(1).lost);
  const auto again = open({kSecond});
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message, HasSubstr("GPU is lost"));
}

TEST_F(EmulatedNvml, knows_no_gpu_without_a_file_and_is_no_driver_without_a_folder) {
  const auto gpus = open({kFirst});
  ASSERT_FALSE(gpus);
  EXPECT_THAT(gpus.error().message, HasSubstr("Not Found"));
  unsetenv("DSM_EMULATED_NVML");
  const auto driver = open({});
  ASSERT_FALSE(driver);
  EXPECT_THAT(driver.error().message, HasSubstr("Driver Not Loaded"));
}

TEST_F(EmulatedNvml, tells_each_xid_that_comes_once_and_none_from_before) {
  say(kFirst, "xid 31\n");
  say(kSecond, "");
  const auto gpus = open({kFirst, kSecond});
  ASSERT_TRUE(gpus) << gpus.error().message;
  ASSERT_TRUE((*gpus)->tells_events());
  EXPECT_FALSE((*gpus)->wait(Millis(0)));
  std::jthread driver([this] { say(kSecond, "xid 79\nxid 154\n"); });
  for (const std::uint64_t xid : {79, 154}) {
    const auto event = (*gpus)->wait(Millis(60'000));
    ASSERT_TRUE(event);
    EXPECT_EQ(event->gpu, 1U);
    EXPECT_EQ(event->xid, xid);
  }
  EXPECT_FALSE((*gpus)->wait(Millis(0)));
  say(kFirst, "lost 1\n");
  EXPECT_FALSE((*gpus)->wait(Millis(60'000)));
  EXPECT_FALSE((*gpus)->tells_events());
}

TEST_F(EmulatedNvml, ends_at_a_line_that_tells_nothing) {
  say(kFirst, "temprature 90\n");
  EXPECT_DEATH((void)open({kFirst}), "temprature 90");
}

}  // namespace
}  // namespace dsm::health
