// A random history with faults, without harm and with it; `make histories` plays thousands. A
// breach names the seed that repeats it: FAULT_SEED=<seed> plays that one alone.
#include "operator/faults/fault_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace dsm::faults {
namespace {

void play(plan::Harm harm, unsigned otherwise, plan::Sleep sleep = plan::Sleep::kNever) {
  const char* const only = std::getenv("FAULT_SEED");
  const unsigned seed =
      only == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(only, nullptr, 10));
  EXPECT_THAT(play_history(seed, harm, sleep).breaches, testing::IsEmpty())
      << "to repeat: FAULT_SEED=" << seed << " and --gtest_filter="
      << testing::UnitTest::GetInstance()->current_test_info()->test_suite_name() << "."
      << testing::UnitTest::GetInstance()->current_test_info()->name();
}

TEST(FaultHistoryTest, EditsAndFaultsOfOperatorsCostNoGroupThatIsNeeded) {
  // The leader changes in the middle of a rollout, and the new one's watches are late.
  play(plan::Harm::kNone, 155);
}

TEST(FaultHistoryTest, WhoEndsAfterALateRenewalFreesNobodyElsesLease) {
  play(plan::Harm::kNone, 2521);
}

TEST(FaultHistoryTest, WhoBeginsToLeadGivesUpNoGroupThatItHasNotHeardYet) {
  play(plan::Harm::kNone, 1, plan::Sleep::kSometimes);     // ready, on a node that is emptied
  play(plan::Harm::kNone, 3400, plan::Sleep::kSometimes);  // asleep, while a rollout is paused
}

TEST(FaultHistoryTest, WhateverHappensToPodsNodesAndOperatorsEndsAsTheSpecsSay) {
  play(plan::Harm::kPodsAndNodes, 1);
}

TEST(FaultHistoryTest, LeadersAreToldToSleepAndToWakeWhoeverLeads) {
  play(plan::Harm::kNone, 2, plan::Sleep::kSometimes);
}

}  // namespace
}  // namespace dsm::faults
