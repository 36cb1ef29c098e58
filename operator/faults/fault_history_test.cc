// A random history with faults, without harm and with it; `make histories` plays thousands. A
// breach names the seed that repeats it: FAULT_SEED=<seed> plays that one alone.
#include "operator/faults/fault_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace dsm::faults {
namespace {

constexpr unsigned kHistories = 1;

void play(plan::Harm harm) {
  const char* const only = std::getenv("FAULT_SEED");
  const unsigned first = only == nullptr ? 1 : static_cast<unsigned>(std::stoul(only));
  const unsigned end = only == nullptr ? first + kHistories : first + 1;
  for (unsigned seed = first; seed < end; ++seed) {
    EXPECT_THAT(play_history(seed, harm).breaches, testing::IsEmpty())
        << "to repeat: FAULT_SEED=" << seed << " and --gtest_filter="
        << testing::UnitTest::GetInstance()->current_test_info()->test_suite_name() << "."
        << testing::UnitTest::GetInstance()->current_test_info()->name();
  }
}

TEST(FaultHistoryTest, EditsAndFaultsOfOperatorsCostNoGroupThatIsNeeded) {
  play(plan::Harm::kNone);
}

TEST(FaultHistoryTest, WhateverHappensToPodsNodesAndOperatorsEndsAsTheSpecsSay) {
  play(plan::Harm::kPodsAndNodes);
}

}  // namespace
}  // namespace dsm::faults
