// A random history of models that an autoscaler scales; `make histories` plays many more. A breach
// names the seed that repeats it: FAULT_SEED=<seed> plays that one alone.
#include "operator/faults/scaling_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace dsm::faults {
namespace {

void play(plan::Harm harm, unsigned otherwise) {
  const char* const only = std::getenv("FAULT_SEED");
  const unsigned seed =
      only == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(only, nullptr, 10));
  EXPECT_THAT(play_scaling_history(seed, harm).breaches, testing::IsEmpty())
      << "to repeat: FAULT_SEED=" << seed;
}

TEST(ScalingHistoryTest, NoNumberIsTooLowWhateverOperatorsKnow) {
  play(plan::Harm::kNone, 1);
}

TEST(ScalingHistoryTest, ReplicasFollowTheLoadWhateverHappensToPodsAndNodes) {
  play(plan::Harm::kPodsAndNodes, 1);
}

}  // namespace
}  // namespace dsm::faults
