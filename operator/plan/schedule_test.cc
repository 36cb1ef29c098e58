#include "operator/plan/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::plan {
namespace {

using ::testing::HasSubstr;

constexpr ReplicaBounds kBase{1, 4};

WallTime at(const char* text) {
  return from_rfc3339(text);
}

api::Schedule schedule(const char* zone, const char* days, const char* from, const char* to) {
  api::Schedule out;
  out.name = "busy";
  out.time_zone = zone;
  out.days = days;
  out.from = from;
  out.to = to;
  out.min_replicas = 3;
  out.max_replicas = 9;
  return out;
}

ScheduledBounds look(const std::vector<api::Schedule>& schedules, const char* now) {
  const auto out = bounds_at(kBase, schedules, at(now));
  EXPECT_TRUE(out) << (out ? "" : out.error().message);
  return out.value_or(ScheduledBounds{});
}

std::string until(const std::vector<api::Schedule>& schedules, const char* now) {
  const auto out = look(schedules, now);
  return out.until ? to_rfc3339(*out.until) : "";
}

TEST(Schedule, without_schedules_the_bounds_hold_for_ever) {
  const auto out = look({}, "2026-11-26T12:00:00Z");
  EXPECT_EQ(out.bounds, kBase);
  EXPECT_FALSE(out.until);
}

TEST(Schedule, a_window_is_from_its_first_minute_to_before_its_end_on_its_days) {
  // 2026-11-26 is a Thursday; Berlin is at UTC+1.
  const std::vector<api::Schedule> work{schedule("Europe/Berlin", "Mon-Fri", "08:00", "18:00")};
  EXPECT_EQ(look(work, "2026-11-26T06:59:59Z").schedule, "");
  EXPECT_EQ(until(work, "2026-11-26T06:59:59Z"), "2026-11-26T07:00:00Z");
  EXPECT_EQ(look(work, "2026-11-26T07:00:00Z").bounds, (ReplicaBounds{3, 9}));
  EXPECT_EQ(until(work, "2026-11-26T07:00:00Z"), "2026-11-26T17:00:00Z");
  EXPECT_EQ(look(work, "2026-11-26T17:00:00Z").bounds, kBase);
  EXPECT_EQ(until(work, "2026-11-27T17:00:00Z"), "2026-11-30T07:00:00Z");
}

TEST(Schedule, a_window_over_midnight_belongs_to_the_day_on_which_it_begins) {
  const std::vector<api::Schedule> night{schedule("UTC", "Fri", "22:00", "06:00")};
  EXPECT_EQ(look(night, "2026-11-27T23:00:00Z").schedule, "busy");  // Friday
  EXPECT_EQ(look(night, "2026-11-28T05:59:00Z").schedule, "busy");  // Saturday morning
  EXPECT_EQ(look(night, "2026-11-28T06:00:00Z").schedule, "");
  EXPECT_EQ(look(night, "2026-11-28T23:00:00Z").schedule, "");
  EXPECT_EQ(look(night, "2026-11-27T05:00:00Z").schedule, "");
}

TEST(Schedule, a_whole_day_ends_at_24) {
  const std::vector<api::Schedule> weekend{schedule("UTC", "Sat,Sun", "00:00", "24:00")};
  EXPECT_EQ(until(weekend, "2026-11-27T12:00:00Z"), "2026-11-28T00:00:00Z");
  EXPECT_EQ(until(weekend, "2026-11-28T12:00:00Z"), "2026-11-30T00:00:00Z");
}

TEST(Schedule, the_first_that_holds_decides) {
  auto night = schedule("UTC", "", "20:00", "08:00");
  night.name = "night";
  night.min_replicas = 2;
  night.max_replicas = 2;
  const std::vector<api::Schedule> both{night, schedule("UTC", "", "06:00", "21:00")};
  EXPECT_EQ(look(both, "2026-11-26T07:00:00Z").schedule, "night");
  EXPECT_EQ(until(both, "2026-11-26T07:00:00Z"), "2026-11-26T08:00:00Z");
  EXPECT_EQ(look(both, "2026-11-26T19:00:00Z").schedule, "busy");
  EXPECT_EQ(until(both, "2026-11-26T19:00:00Z"), "2026-11-26T20:00:00Z");
}

TEST(Schedule, when_the_clock_is_set_forward_the_day_is_an_hour_shorter) {
  // Berlin, 2026-03-29: 02:00 becomes 03:00, at 01:00 UTC.
  const std::vector<api::Schedule> work{schedule("Europe/Berlin", "", "08:00", "18:00")};
  EXPECT_EQ(until(work, "2026-03-28T12:00:00Z"), "2026-03-28T17:00:00Z");
  EXPECT_EQ(until(work, "2026-03-28T18:00:00Z"), "2026-03-29T06:00:00Z");
  // A window in the hour that does not exist never holds, one that reaches into it ends with it.
  const std::vector<api::Schedule> skipped{schedule("Europe/Berlin", "Sun", "02:10", "02:50")};
  EXPECT_EQ(until(skipped, "2026-03-28T12:00:00Z"), "2026-04-05T00:10:00Z");
  const std::vector<api::Schedule> reaches{schedule("Europe/Berlin", "", "01:00", "02:30")};
  EXPECT_EQ(until(reaches, "2026-03-29T00:30:00Z"), "2026-03-29T01:00:00Z");
  const std::vector<api::Schedule> begins{schedule("Europe/Berlin", "", "02:30", "05:00")};
  EXPECT_EQ(until(begins, "2026-03-29T00:30:00Z"), "2026-03-29T01:00:00Z");
}

TEST(Schedule, when_the_clock_is_set_back_the_hour_that_comes_twice_counts_twice) {
  // Berlin, 2026-10-25: 03:00 becomes 02:00, at 01:00 UTC.
  const std::vector<api::Schedule> night{schedule("Europe/Berlin", "", "01:00", "02:30")};
  EXPECT_EQ(until(night, "2026-10-24T23:30:00Z"), "2026-10-25T00:30:00Z");
  EXPECT_EQ(look(night, "2026-10-25T00:45:00Z").schedule, "");
  EXPECT_EQ(until(night, "2026-10-25T00:45:00Z"), "2026-10-25T01:00:00Z");
  EXPECT_EQ(look(night, "2026-10-25T01:15:00Z").schedule, "busy");
  EXPECT_EQ(until(night, "2026-10-25T01:15:00Z"), "2026-10-25T01:30:00Z");
}

TEST(Schedule, what_a_schedule_leaves_out_is_as_without_it) {
  auto one = schedule("UTC", "", "00:00", "24:00");
  one.max_replicas.reset();
  EXPECT_EQ(look({one}, "2026-11-26T12:00:00Z").bounds, (ReplicaBounds{3, 4}));
  one.min_replicas = 6;
  EXPECT_EQ(look({one}, "2026-11-26T12:00:00Z").bounds, (ReplicaBounds{6, 6}));
}

// Over a year the answer changes just when `until` said that it would.
TEST(Schedule, until_is_when_it_changes) {
  std::vector<api::Schedule> all{schedule("America/New_York", "Mon-Fri", "08:30", "17:00"),
                                 schedule("Australia/Lord_Howe", "Sat-Mon", "01:45", "02:10"),
                                 schedule("Asia/Kathmandu", "Wed", "23:00", "24:00")};
  for (std::size_t i = 0; i < all.size(); ++i) all[i].name = std::to_string(i);
  const auto in_force = [&](WallTime t) { return bounds_at(kBase, all, t)->schedule; };
  auto now = at("2026-01-01T00:00:00Z");
  const auto end = at("2027-01-01T00:00:00Z");
  while (now < end) {
    const auto here = bounds_at(kBase, all, now);
    ASSERT_TRUE(here && here->until);
    ASSERT_GT(*here->until, now);
    for (auto t = now; t < *here->until; t += std::chrono::hours(1)) {
      ASSERT_EQ(in_force(t), here->schedule) << to_rfc3339(t);
    }
    ASSERT_EQ(in_force(*here->until - std::chrono::seconds(1)), here->schedule);
    ASSERT_NE(in_force(*here->until), here->schedule);
    now = *here->until;
  }
}

TEST(Schedule, a_mistake_names_its_place_and_the_remedy) {
  const auto mistake = [](const api::Schedule& one) {
    const auto out =
        bounds_at(kBase, {schedule("UTC", "", "00:00", "24:00"), one}, at("2026-11-26T12:00:00Z"));
    return out ? std::string() : out.error().message;
  };
  EXPECT_THAT(
      mistake(schedule("Europe/Atlantis", "", "01:00", "02:00")),
      HasSubstr("schedules[1].timeZone: is \"Europe/Atlantis\"; use a name of the IANA list"));
  EXPECT_THAT(mistake(schedule("../../etc/passwd", "", "01:00", "02:00")), HasSubstr("timeZone"));
  for (const char* days :
       {"Monday", "Mon-", "-Fri", "Mon,", ",Mon", "Mon Fri", "mon", "Mon--Fri"}) {
    EXPECT_THAT(mistake(schedule("UTC", days, "01:00", "02:00")), HasSubstr("schedules[1].days"))
        << days;
  }
  for (const char* time : {"8:00", "08:60", "24:01", "0800", "-1:00", "+1:00", "aa:bb", ""}) {
    EXPECT_THAT(mistake(schedule("UTC", "", time, "02:00")), HasSubstr("schedules[1].from"))
        << time;
    EXPECT_THAT(mistake(schedule("UTC", "", "01:00", time)), HasSubstr("schedules[1].to")) << time;
  }
}

}  // namespace
}  // namespace dsm::plan
