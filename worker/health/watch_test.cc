// What a watch tells of GPUs, and when.
#include "worker/health/watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "worker/health/fake_nvml.h"

namespace dsm::health {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kFirst = "0000:07:00.0";
constexpr const char* kSecond = "0000:1B:00.0";

// Keeps what was told of each rank.
class Listener {
 public:
  Told told() {
    return [this](int rank, const DeviceHealth& health) {
      const std::lock_guard lock(mutex_);
      last_[rank] = health;
      changed_.notify_all();
    };
  }
  // Waits until a rank's GPU is so.
  ::testing::AssertionResult hears(int rank, Level level) {
    std::unique_lock lock(mutex_);
    const bool so =
        changed_.wait_for(lock, Seconds(60), [&] { return last_[rank].level == level; });
    return so ? ::testing::AssertionSuccess()
              : ::testing::AssertionFailure() << to_string(last_[rank].level) << " it is";
  }
  DeviceHealth last(int rank) {
    const std::lock_guard lock(mutex_);
    return last_[rank];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, DeviceHealth> last_;
};

struct WatchTest : ::testing::Test {
  WatchTest() {
    nvml.add(kFirst).number = 0;
    nvml.add(kSecond).number = 3;
  }
  void start() {
    auto gpus = Gpus::open(nvml.api(), {kFirst, kSecond});
    ASSERT_TRUE(gpus);
    const auto own = [](std::size_t gpu) {
      return OwnMemory{.allocated = (50 + gpu) << 30, .fragmented = (2 + gpu) << 20};
    };
    watch = std::make_unique<Watch>(std::move(*gpus), 4, registry, own, listener.told(), clock,
                                    Logger());
  }

  FakeNvml nvml;
  MetricsRegistry registry;
  ManualClock clock;
  Listener listener;
  std::unique_ptr<Watch> watch;
};

TEST_F(WatchTest, tells_how_each_ranks_gpu_is_at_once) {
  start();
  ASSERT_TRUE(listener.hears(5, Level::kHealthy));
  const DeviceHealth health = listener.last(5);
  EXPECT_EQ(health.device, "GPU 3");
  EXPECT_EQ(health.utilisation_percent, 87U);
  EXPECT_EQ(health.temperature_celsius, 61U);
  EXPECT_EQ(health.power_watts, 412U);
  EXPECT_EQ(health.memory_used, 60ULL << 30);
  EXPECT_EQ(health.memory_total, 80ULL << 30);
  EXPECT_EQ(health.memory_allocated, 51ULL << 30) << "the rank's own";
  EXPECT_EQ(health.memory_fragmented, 3ULL << 20);
}

TEST_F(WatchTest, tells_a_fatal_event_of_the_gpu_that_has_it_without_waiting_for_a_look) {
  start();
  ASSERT_TRUE(listener.hears(4, Level::kHealthy));
  nvml.tell(kSecond, 79);
  ASSERT_TRUE(listener.hears(5, Level::kFatal)) << "the clock stands still";
  EXPECT_THAT(listener.last(5).message, HasSubstr("GPU 3: Xid 79 (GPU has fallen off the bus)"));
  EXPECT_EQ(listener.last(4).level, Level::kHealthy);
  watch.reset();
  const std::string metrics = metrics_text(registry);
  const std::string labels = R"({bus="0000:1B:00.0",gpu="GPU 3",rank="5",xid=)";
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_xid_events_total" + labels + "\"79\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_xid_events_total" + labels + "\"48\"} 0"));
}

TEST_F(WatchTest, looks_again_every_few_seconds) {
  start();
  ASSERT_TRUE(listener.hears(5, Level::kHealthy));
  nvml.change(kSecond, [](FakeGpu& gpu) { gpu.rows[2] = 1; });
  clock.advance(Watch::kEvery);
  ASSERT_TRUE(listener.hears(5, Level::kDegraded));
  nvml.change(kSecond, [](FakeGpu& gpu) { gpu.rows[2] = 0; });
  clock.advance(Watch::kEvery);
  ASSERT_TRUE(listener.hears(5, Level::kHealthy));
}

TEST_F(WatchTest, goes_on_where_the_driver_tells_no_events) {
  nvml.has_events = false;
  start();
  ASSERT_TRUE(listener.hears(5, Level::kHealthy));
  nvml.change(kSecond, [](FakeGpu& gpu) { gpu.fails = nvml::kGpuIsLost; });
  clock.advance(Watch::kEvery);
  ASSERT_TRUE(listener.hears(5, Level::kFatal));
}

TEST_F(WatchTest, looks_at_once_when_waiting_for_events_fails) {
  start();
  ASSERT_TRUE(listener.hears(5, Level::kHealthy));
  nvml.change(kSecond, [](FakeGpu& gpu) { gpu.fails = nvml::kGpuIsLost; });
  {
    const std::lock_guard lock(nvml.mutex);
    nvml.events_fail = nvml::kGpuIsLost;
  }
  nvml.told.notify_all();
  ASSERT_TRUE(listener.hears(5, Level::kFatal)) << "the clock stands still";
}

TEST_F(WatchTest, shows_what_is_known_and_nothing_that_is_not) {
  nvml.change(kSecond, [](FakeGpu& gpu) {
    gpu.has_rows = false;
    gpu.throttle = kThermal;
  });
  start();
  ASSERT_TRUE(listener.hears(5, Level::kHealthy));
  watch.reset();
  const std::string metrics = metrics_text(registry);
  const std::string gpu = R"({bus="0000:1B:00.0",gpu="GPU 3",)";
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_health" + gpu + "rank=\"5\"} 0"));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_utilisation_ratio" + gpu + "rank=\"5\"} 0.87"));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_power_watts" + gpu + "rank=\"5\"} 412.5"));
  EXPECT_THAT(metrics,
              HasSubstr("dsm_gpu_memory_allocated_bytes" + gpu + "rank=\"5\"} 54760833024"));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_memory_fragmented_bytes" + gpu + "rank=\"5\"} 3145728"));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_throttled" + gpu + "rank=\"5\",reason=\"thermal\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_throttled" + gpu + "rank=\"5\",reason=\"power_cap\"} 0"));
  EXPECT_THAT(metrics, Not(HasSubstr("dsm_gpu_row_remap_pending" + gpu + "rank=\"5\"")));
  EXPECT_THAT(metrics, HasSubstr("dsm_gpu_row_remap_pending"));
}

TEST(WatchGpus, loads_and_says_nothing_where_there_is_no_gpu) {
  MetricsRegistry registry;
  SystemClock clock;
  EXPECT_EQ(watch_gpus({}, 0, registry, {}, {}, clock, Logger(), "libm.so.6"), nullptr);
  EXPECT_EQ(watch_gpus({kFirst}, 0, registry, {}, {}, clock, Logger(), "libno-such-thing.so.1"),
            nullptr);
}

}  // namespace
}  // namespace dsm::health
