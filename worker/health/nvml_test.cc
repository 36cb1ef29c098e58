// A GPU as the library shows it, and what is said where there is no library.
#include "worker/health/nvml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/health/fake_nvml.h"
#include "worker/health/gpus.h"

namespace dsm::health {
namespace {

using ::testing::HasSubstr;

constexpr const char* kBus = "0000:1B:00.0";

TEST(Nvml, that_is_not_there_is_no_error_of_the_program) {
  const auto api = nvml::load("libno-such-thing.so.1");
  ASSERT_FALSE(api);
  EXPECT_EQ(api.error().kind, ErrorKind::kNotFound);
}

TEST(Nvml, that_is_too_old_is_told_by_what_it_lacks) {
  const auto api = nvml::load("libm.so.6");
  ASSERT_FALSE(api);
  EXPECT_EQ(api.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(api.error().message, HasSubstr("nvmlInit_v2"));
}

TEST(Gpus, are_read_with_all_that_they_tell) {
  FakeNvml nvml;
  FakeGpu& gpu = nvml.add(kBus);
  gpu.rows = {1, 2, 1, 0};
  gpu.ecc = {7, 1};
  gpu.links[2] = 0;
  const auto gpus = Gpus::open(nvml.api(), {kBus});
  ASSERT_TRUE(gpus) << gpus.error().message;
  const Reading now = (*gpus)->read(0);
  EXPECT_EQ(now.device, "GPU 3");
  EXPECT_EQ(now.bus, kBus);
  EXPECT_EQ(now.utilisation_percent, 87U);
  EXPECT_EQ(now.memory_used, 60ULL << 30);
  EXPECT_EQ(now.temperature_celsius, 61U);
  EXPECT_EQ(now.power_milliwatts, 412'500U);
  EXPECT_EQ(now.sm_clock_mhz, 1980U);
  EXPECT_EQ(now.memory_clock_mhz, 2619U);
  EXPECT_EQ(now.ecc_corrected, 7U);
  EXPECT_EQ(now.ecc_uncorrected, 1U);
  ASSERT_TRUE(now.rows);
  EXPECT_EQ(now.rows->uncorrected, 2U);
  EXPECT_TRUE(now.rows->pending);
  EXPECT_FALSE(now.rows->failed);
  EXPECT_EQ(now.links, 3U);
  EXPECT_EQ(now.link_errors, 3U * 3U * 2U);
  EXPECT_FALSE(now.lost);
}

TEST(Gpus, leave_out_what_they_do_not_tell) {
  FakeNvml nvml;
  nvml.add(kBus).has_rows = false;
  const auto gpus = Gpus::open(nvml.api(), {kBus});
  ASSERT_TRUE(gpus);
  EXPECT_FALSE((*gpus)->read(0).rows);
  nvml.change(kBus, [](FakeGpu& gpu) { gpu.fails = nvml::kNotSupported; });
  const Reading now = (*gpus)->read(0);
  EXPECT_FALSE(now.utilisation_percent);
  EXPECT_FALSE(now.links);
  EXPECT_FALSE(now.lost);
  nvml.change(kBus, [](FakeGpu& gpu) { gpu.fails = nvml::kGpuIsLost; });
  EXPECT_TRUE((*gpus)->read(0).lost);
  nvml.change(kBus, [](FakeGpu& gpu) { gpu.fails = nvml::kResetRequired; });
  EXPECT_TRUE((*gpus)->read(0).needs_reset);
}

TEST(Gpus, that_nvml_does_not_know_are_told_and_nothing_is_left_open) {
  FakeNvml nvml;
  const auto gpus = Gpus::open(nvml.api(), {kBus});
  ASSERT_FALSE(gpus);
  EXPECT_THAT(gpus.error().message, HasSubstr(kBus));
  EXPECT_EQ(nvml.users, 0);
  nvml.init = nvml::kGpuIsLost;
  EXPECT_FALSE(Gpus::open(nvml.api(), {}));
}

TEST(Gpus, hear_events_of_their_own_and_cease_when_the_library_fails) {
  FakeNvml nvml;
  nvml.add("0000:07:00.0");
  nvml.add(kBus);
  {
    const auto gpus = Gpus::open(nvml.api(), {"0000:07:00.0", kBus});
    ASSERT_TRUE(gpus);
    EXPECT_FALSE((*gpus)->wait(Millis(0)));
    nvml.tell(kBus, 79);
    const auto event = (*gpus)->wait(Millis(10'000));
    ASSERT_TRUE(event);
    EXPECT_EQ(event->gpu, 1U);
    EXPECT_EQ(event->xid, 79U);
    nvml.events_fail = nvml::kGpuIsLost;
    EXPECT_FALSE((*gpus)->wait(Millis(10'000)));
    EXPECT_FALSE((*gpus)->tells_events());
  }
  EXPECT_EQ(nvml.event_sets, 0);
  EXPECT_EQ(nvml.users, 0);
}

}  // namespace
}  // namespace dsm::health
