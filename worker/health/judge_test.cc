// What is thought of a GPU, from what it shows.
#include "worker/health/judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "worker/health/xid.h"

namespace dsm::health {
namespace {

using ::testing::HasSubstr;

Reading healthy() {
  Reading reading;
  reading.device = "GPU 3";
  reading.ecc_uncorrected = 0;
  reading.rows.emplace();
  reading.links = 4;
  reading.throttle = kPowerCap;  // as under any load
  return reading;
}

struct Case {
  const char* name;
  std::function<void(Reading&, History&)> change;
  Level level;
  const char* says;
};

class Judged : public ::testing::TestWithParam<Case> {};

TEST_P(Judged, ByWhatItShows) {
  Reading reading = healthy();
  History history;
  remember(history, reading);
  GetParam().change(reading, history);
  const DeviceHealth health = judge(reading, history);
  EXPECT_EQ(to_string(health.level), to_string(GetParam().level));
  EXPECT_THAT(health.message, HasSubstr(GetParam().says));
  EXPECT_EQ(health.message.empty(), health.level == Level::kHealthy);
}

void xid(History& history, std::uint64_t number) {
  remember_xid(history, number);
}

INSTANTIATE_TEST_SUITE_P(
    Gpus, Judged,
    ::testing::Values(
        Case{"healthy", [](Reading&, History&) {}, Level::kHealthy, ""},
        Case{"knows_nothing", [](Reading& r, History&) { r = Reading(); }, Level::kHealthy, ""},
        Case{"lost", [](Reading& r, History&) { r.lost = true; }, Level::kFatal,
             "GPU 3: it does not answer any more: restart the node"},
        Case{"reset", [](Reading& r, History&) { r.needs_reset = true; }, Level::kFatal,
             "reset the GPU"},
        Case{"off_the_bus", [](Reading&, History& h) { xid(h, 79); }, Level::kFatal,
             "GPU 3: Xid 79 (GPU has fallen off the bus): restart the node"},
        Case{"the_first_of_fatal_ones",
             [](Reading&, History& h) {
               xid(h, 63);
               xid(h, 48);
               xid(h, 79);
             },
             Level::kFatal, "Xid 48"},
        Case{"a_program's_fault", [](Reading&, History& h) { xid(h, 31); }, Level::kHealthy, ""},
        Case{"remapping", [](Reading& r, History&) { r.rows->pending = true; }, Level::kDegraded,
             "waits to be remapped: reset the GPU"},
        Case{"no_rows_left", [](Reading& r, History&) { r.rows->failed = r.rows->pending = true; },
             Level::kDegraded, "replace the GPU"},
        Case{"uncorrected", [](Reading& r, History&) { r.ecc_uncorrected = 2; }, Level::kDegraded,
             "uncorrected memory errors since its driver was loaded"},
        Case{"a_link_down",
             [](Reading& r, History& h) {
               r.links = 3;
               remember(h, r);
             },
             Level::kDegraded, "1 of 4 NVLinks are down"},
        Case{"link_error", [](Reading&, History& h) { xid(h, 74); }, Level::kDegraded, "Xid 74"},
        Case{"hot_for_a_moment", [](Reading& r, History&) { r.throttle = kThermal; },
             Level::kHealthy, ""},
        Case{"hot",
             [](Reading& r, History& h) {
               r.throttle = kThermal;
               for (int i = 0; i < kHotReadings; ++i) remember(h, r);
             },
             Level::kDegraded, "for heat: check the node's cooling"},
        Case{"weak_supply",
             [](Reading& r, History& h) {
               r.throttle = kPowerBrake;
               for (int i = 0; i < kHotReadings; ++i) remember(h, r);
             },
             Level::kDegraded, "check the node's power"},
        Case{"cooled_down",
             [](Reading& r, History& h) {
               r.throttle = kThermal;
               for (int i = 0; i < kHotReadings; ++i) remember(h, r);
               r.throttle = 0;
               for (int i = 0; i < kCalmReadings; ++i) remember(h, r);
             },
             Level::kHealthy, ""}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::erase(name, '\'');
      return name;
    });

TEST(History, remembers_each_xid_once_and_not_without_bound) {
  History history;
  EXPECT_TRUE(remember_xid(history, 79));
  EXPECT_FALSE(remember_xid(history, 79));
  for (std::uint64_t number = 1000; number < 2000; ++number) remember_xid(history, number);
  EXPECT_LT(history.xids.size(), 100U);
  EXPECT_EQ(judge(healthy(), history).level, Level::kFatal);
}

// Of NVIDIA's catalogue: what asks for a reset or a restart of the node ends the process, what only
// a program can have done does not.
TEST(Xids, end_the_process_as_the_catalogue_says) {
  for (const std::uint64_t fatal : {48, 64, 79, 94, 95, 119, 120, 140, 143}) {
    ASSERT_NE(find_xid(fatal), nullptr) << fatal;
    EXPECT_TRUE(find_xid(fatal)->fatal) << fatal;
    EXPECT_FALSE(find_xid(fatal)->remedy.empty()) << fatal;
  }
  for (const std::uint64_t not_fatal : {63, 74, 92}) {
    ASSERT_NE(find_xid(not_fatal), nullptr) << not_fatal;
    EXPECT_FALSE(find_xid(not_fatal)->fatal) << not_fatal;
  }
  for (const std::uint64_t of_a_program : {13, 31, 43, 45, 68, 69}) {
    EXPECT_EQ(find_xid(of_a_program), nullptr) << of_a_program;
  }
}

TEST(Lost, is_a_gpu_that_no_new_process_mends) {
  const auto with_xids = [](std::initializer_list<std::uint64_t> numbers) {
    History history;
    for (const std::uint64_t number : numbers) xid(history, number);
    return judge(healthy(), history);
  };
  EXPECT_TRUE(is_lost(with_xids({79})));
  EXPECT_TRUE(is_lost(with_xids({48, 94})));
  EXPECT_FALSE(is_lost(with_xids({94}))) << "the next process leaves out that memory";
  EXPECT_FALSE(is_lost(with_xids({63}))) << "it computes";
  EXPECT_FALSE(is_lost(with_xids({})));
  Reading gone = healthy();
  gone.lost = true;
  EXPECT_TRUE(is_lost(judge(gone, History())));
}

}  // namespace
}  // namespace dsm::health
