// When a refused client is told to come back.
#include "worker/engine/start_rate.h"

#include <gtest/gtest.h>

namespace dsm::engine {
namespace {

TEST(StartRate, TellsTheLongestWhenNothingHasStarted) {
  StartRate rate;
  EXPECT_EQ(rate.seconds_for_requests(1), StartRate::kLongest);
  rate.observe({}, 5, 500);
  rate.observe(TimePoint() + Seconds(10), 5, 500);
  EXPECT_EQ(rate.seconds_for_tokens(1), StartRate::kLongest);
}

TEST(StartRate, DividesByTheRateOfTheWindow) {
  StartRate rate;
  for (int second = 0; second <= 20; ++second) {
    rate.observe(TimePoint() + Seconds(second), static_cast<std::uint64_t>(second / 2),
                 static_cast<std::uint64_t>(second) * 100);
  }
  EXPECT_EQ(rate.seconds_for_requests(1), 2);
  EXPECT_EQ(rate.seconds_for_requests(5), 10);
  EXPECT_EQ(rate.seconds_for_requests(1'000'000), StartRate::kLongest);
  EXPECT_EQ(rate.seconds_for_tokens(1), 1) << "at least one";
  EXPECT_EQ(rate.seconds_for_tokens(250), 3) << "rounded up";
}

TEST(StartRate, ForgetsWhatIsOlderThanTheWindow) {
  StartRate rate;
  rate.observe({}, 0, 0);
  rate.observe(TimePoint() + Seconds(1), 1000, 1000);
  for (int second = 2; second <= 100; ++second) {
    rate.observe(TimePoint() + Seconds(second), static_cast<std::uint64_t>(1000 + second), 1000);
  }
  EXPECT_EQ(rate.seconds_for_requests(10), 10);
  EXPECT_EQ(rate.seconds_for_tokens(10), StartRate::kLongest);
}

}  // namespace
}  // namespace dsm::engine
