// A few random histories; `make histories` runs thousands. A breach names the seed that repeats it.
#include "operator/plan/random_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::plan {
namespace {

constexpr unsigned kHistories = 4;
constexpr unsigned kHistoriesWithSleep = 2;

TEST(RandomHistory, edits_and_lost_writes_cost_no_group_that_is_needed) {
  for (unsigned seed = 1; seed <= kHistories; ++seed) {
    EXPECT_THAT(breaches_of_history(seed, Harm::kNone), testing::IsEmpty()) << "seed " << seed;
  }
}

TEST(RandomHistory, whatever_happens_to_pods_and_nodes_ends_as_the_spec_says) {
  for (unsigned seed = 1; seed <= kHistories; ++seed) {
    EXPECT_THAT(breaches_of_history(seed, Harm::kPodsAndNodes), testing::IsEmpty())
        << "seed " << seed;
  }
}

TEST(RandomHistory, groups_that_sleep_count_like_those_that_serve) {
  for (unsigned seed = 1; seed <= kHistoriesWithSleep; ++seed) {
    EXPECT_THAT(breaches_of_history(seed, Harm::kNone, Sleep::kSometimes), testing::IsEmpty())
        << "seed " << seed;
  }
}

TEST(RandomHistory, whatever_happens_while_groups_sleep_ends_as_the_spec_says) {
  for (unsigned seed = 1; seed <= kHistoriesWithSleep; ++seed) {
    EXPECT_THAT(breaches_of_history(seed, Harm::kPodsAndNodes, Sleep::kSometimes),
                testing::IsEmpty())
        << "seed " << seed;
  }
}

}  // namespace
}  // namespace dsm::plan
