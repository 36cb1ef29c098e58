// A random history of groups that are admitted and placed whole; `make histories` plays many more.
// A breach names the seed that repeats it: FAULT_SEED=<seed> plays that one alone.
#include "operator/faults/gang_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace dsm::faults {
namespace {

void play(plan::Harm harm, unsigned otherwise) {
  const char* const only = std::getenv("FAULT_SEED");
  const unsigned seed =
      only == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(only, nullptr, 10));
  EXPECT_THAT(play_gang_history(seed, harm).breaches, testing::IsEmpty())
      << "to repeat: FAULT_SEED=" << seed;
}

TEST(GangHistoryTest, GroupsAreAdmittedAndPlacedWholeWhateverTheQueueAndOperatorsDo) {
  play(plan::Harm::kNone, 1);
}

TEST(GangHistoryTest, NothingIsHeldForGroupsWhosePodsAndNodesAreLost) {
  play(plan::Harm::kPodsAndNodes, 1);
}

}  // namespace
}  // namespace dsm::faults
