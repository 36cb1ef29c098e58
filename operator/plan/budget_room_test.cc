// What a budget leaves for groups that are begun now, beside what models are granted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/budget.h"

namespace dsm::plan {
namespace {

constexpr const char* kGpu = "nvidia.com/gpu";

// Groups of one GPU each.
BudgetModel model(const std::string& name, int age_s, int wanted, int held, int there) {
  return {.key = "ns/" + name,
          .created = WallTime(Seconds(1000 - age_s)),
          .wanted = wanted,
          .held = held,
          .there = there,
          .holds = {{kGpu, there * 1000.0}},
          .group = {{kGpu, 1000.0}}};
}

BudgetResult gpus(int number, std::vector<BudgetModel> models) {
  return budget({.models = {}, .resources = {{kGpu, std::to_string(number)}}}, std::move(models));
}

double room(const BudgetResult& result, const std::string& name) {
  return result.shares.at("ns/" + name).room.at(kGpu) / 1000;
}

TEST(BudgetRoom, one_more_group_for_a_while_takes_room_and_is_not_granted) {
  const BudgetResult rolling = gpus(3, {model("rolls", 9, 3, 2, 3), model("young", 1, 1, 0, 0)});
  EXPECT_EQ(rolling.shares.at("ns/rolls").groups, 2);
  EXPECT_EQ(room(rolling, "rolls"), 0);
  EXPECT_EQ(rolling.shares.at("ns/young").groups, 0);
}

TEST(BudgetRoom, a_granted_group_that_is_lost_has_its_room_kept_free) {
  const BudgetResult lost = gpus(2, {model("old", 9, 1, 0, 0), model("lost", 1, 2, 2, 1)});
  EXPECT_EQ(lost.shares.at("ns/lost").groups, 2);
  EXPECT_EQ(room(lost, "lost"), 1);
  EXPECT_EQ(lost.shares.at("ns/old").groups, 0);
  EXPECT_EQ(room(lost, "old"), 0);
}

TEST(BudgetRoom, nothing_is_begun_beyond_a_budget_that_was_lowered) {
  const BudgetResult lowered = gpus(1, {model("m", 9, 2, 2, 1)});
  EXPECT_EQ(lowered.shares.at("ns/m").groups, 2) << "it stays granted";
  EXPECT_EQ(room(lowered, "m"), 0) << "and waits";
  EXPECT_EQ(room(gpus(1, {model("m", 9, 2, 2, 2)}), "m"), -1);
}

TEST(BudgetRoom, who_has_lost_all_groups_and_finds_no_room_is_not_overtaken) {
  BudgetModel large = model("large", 9, 1, 1, 0);
  large.group = {{kGpu, 3000.0}};
  const BudgetResult waits =
      gpus(3, {large, model("runs", 5, 1, 1, 1), model("small", 1, 1, 0, 0)});
  EXPECT_EQ(waits.shares.at("ns/small").waits_for, "ns/large");
}

}  // namespace
}  // namespace dsm::plan
