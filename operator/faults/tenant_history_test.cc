// A random history of tenants with faults; `make histories` plays many more, also with harm to pods
// and nodes. A breach names the seed that repeats it: FAULT_SEED=<seed> plays that one alone.
#include "operator/faults/tenant_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace dsm::faults {
namespace {

TEST(TenantHistoryTest, ABudgetIsKeptWhateverUsersAndOperatorsDo) {
  const char* const only = std::getenv("FAULT_SEED");
  const unsigned seed =
      only == nullptr ? 1 : static_cast<unsigned>(std::strtoul(only, nullptr, 10));
  EXPECT_THAT(play_tenant_history(seed, plan::Harm::kNone).breaches, testing::IsEmpty())
      << "to repeat: FAULT_SEED=" << seed;
}

}  // namespace
}  // namespace dsm::faults
