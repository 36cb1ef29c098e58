// Every write and every event of a short history goes wrong once in each way. A few of them here;
// `make histories` plays all.
#include "operator/faults/one_fault.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::faults {
namespace {

using ::testing::IsEmpty;

constexpr ShortHistory kSmall{.groups = 1, .pods = 1, .until = ShortHistory::Until::kMade};

TEST(OneFaultTest, WithoutFaultsTheHistoryIsAsItShouldBe) {
  OneFault none;
  EXPECT_THAT(play(ShortHistory{}, none), IsEmpty());
  EXPECT_GT(none.writes(), 40);
  EXPECT_GT(none.events(), 100);
}

class CrashTest : public ::testing::TestWithParam<WriteFault> {};

TEST_P(CrashTest, AtEachWriteOfAModelThatIsMade) {
  OneFault none;
  ASSERT_THAT(play(kSmall, none), IsEmpty());
  ASSERT_GT(none.writes(), 8);
  for (int write = 0; write < none.writes(); ++write) {
    OneFault one(write, GetParam());
    EXPECT_THAT(play(kSmall, one), IsEmpty()) << "write " << write;
  }
}

INSTANTIATE_TEST_SUITE_P(OneFaultTest, CrashTest,
                         ::testing::Values(WriteFault::kCrashBefore, WriteFault::kCrashAfter));

// One in the middle of a rolling change of each other kind.
TEST(OneFaultTest, OfEachKind) {
  const ShortHistory history{.until = ShortHistory::Until::kChanged};
  OneFault none;
  ASSERT_THAT(play(history, none), IsEmpty());
  const int write = none.writes() * 2 / 3;
  for (const WriteFault fault :
       {WriteFault::kRefused, WriteFault::kLostBefore, WriteFault::kLostAfter, WriteFault::kSlow,
        WriteFault::kStopped, WriteFault::kHandOver}) {
    OneFault one(write, fault, fault == WriteFault::kHandOver ? Millis(3'000) : Millis(0));
    EXPECT_THAT(play(history, one), IsEmpty()) << "fault " << static_cast<int>(fault);
  }
  const int event = none.events() * 2 / 3;
  for (const EventFault& fault :
       {EventFault{.delay = Seconds(5)}, EventFault{.twice = true}, EventFault{.dropped = true}}) {
    OneFault one(event, fault);
    EXPECT_THAT(play(history, one), IsEmpty());
  }
}

}  // namespace
}  // namespace dsm::faults
