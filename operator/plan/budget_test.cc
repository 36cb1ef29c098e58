#include "operator/plan/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/api/quantity.h"

namespace dsm::plan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

constexpr const char* kGpu = "nvidia.com/gpu";

// A model whose groups need so many GPUs each.
BudgetModel model(const std::string& name, int age_s, int wanted, int held, int gpus) {
  return {.key = "ns/" + name,
          .created = WallTime(Seconds(1000 - age_s)),
          .wanted = wanted,
          .held = held,
          .there = held,
          .holds = {{kGpu, held * gpus * 1000.0}},
          .group = {{kGpu, gpus * 1000.0}}};
}

std::map<std::string, int> groups(const api::TenantBudget& limits,
                                  std::vector<BudgetModel> models) {
  std::map<std::string, int> out;
  for (const auto& [key, share] : budget(limits, std::move(models)).shares) {
    out[key.substr(3)] = share.groups;
  }
  return out;
}

api::TenantBudget gpus(int number) {
  return {.models = {}, .resources = {{kGpu, std::to_string(number)}}};
}

TEST(Budget, without_limits_everybody_has_all_that_is_wanted) {
  EXPECT_THAT(groups({}, {model("a", 1, 3, 0, 8), model("b", 2, 2, 0, 8)}),
              ElementsAre(Pair("a", 3), Pair("b", 2)));
}

TEST(Budget, the_oldest_comes_first_and_equal_ages_go_by_name) {
  EXPECT_THAT(groups(gpus(4), {model("young", 1, 1, 0, 4), model("old", 9, 1, 0, 4)}),
              ElementsAre(Pair("old", 1), Pair("young", 0)));
  EXPECT_THAT(groups(gpus(4), {model("b", 1, 1, 0, 4), model("a", 1, 1, 0, 4)}),
              ElementsAre(Pair("a", 1), Pair("b", 0)));
}

TEST(Budget, what_is_held_is_never_taken_away) {
  EXPECT_THAT(groups(gpus(4), {model("old", 9, 1, 0, 4), model("young", 1, 1, 1, 4)}),
              ElementsAre(Pair("old", 0), Pair("young", 1)));
  EXPECT_THAT(groups(gpus(1), {model("a", 1, 3, 2, 4)}), ElementsAre(Pair("a", 2)))
      << "also when the budget was lowered";
}

TEST(Budget, groups_of_another_revision_take_what_they_took_when_they_were_made) {
  BudgetModel shrunk = model("shrunk", 9, 2, 2, 1);
  shrunk.holds = {{kGpu, 8000.0}};
  EXPECT_THAT(groups(gpus(8), {shrunk, model("young", 1, 1, 0, 1)}),
              ElementsAre(Pair("shrunk", 2), Pair("young", 0)));
}

TEST(Budget, what_is_wanted_keeps_to_the_bounds_of_scaling_and_its_schedules) {
  api::Spec spec;
  spec.replicas = 1;
  const WallTime night = from_rfc3339("2026-01-05T23:00:00Z");
  EXPECT_EQ(groups_wanted(spec, night), 1);
  spec.scaling.min_replicas = 3;
  spec.scaling.max_replicas = 6;
  EXPECT_EQ(groups_wanted(spec, night), 3);
  spec.replicas = 9;
  EXPECT_EQ(groups_wanted(spec, night), 6);
  api::Schedule schedule;
  schedule.name = "night";
  schedule.from = "22:00";
  schedule.to = "06:00";
  schedule.max_replicas = 4;
  spec.scaling.schedules.push_back(schedule);
  EXPECT_EQ(groups_wanted(spec, night), 4);
  EXPECT_EQ(groups_wanted(spec, from_rfc3339("2026-01-05T12:00:00Z")), 6);
}

TEST(Budget, groups_that_drain_take_their_room_until_they_are_gone) {
  EXPECT_THAT(groups(gpus(4), {model("less", 9, 1, 3, 1), model("more", 1, 4, 0, 1)}),
              ElementsAre(Pair("less", 1), Pair("more", 1)));
}

TEST(Budget, who_waits_for_a_first_group_is_not_overtaken) {
  const auto shares = budget(gpus(6), {model("runs", 9, 1, 1, 4), model("large", 5, 1, 0, 4),
                                       model("small", 1, 1, 0, 1)})
                          .shares;
  EXPECT_EQ(shares.at("ns/large").groups, 0);
  EXPECT_EQ(shares.at("ns/large").short_of, kGpu);
  EXPECT_EQ(shares.at("ns/small").groups, 0);
  EXPECT_EQ(shares.at("ns/small").waits_for, "ns/large");
}

TEST(Budget, who_only_wants_more_holds_nobody_up) {
  EXPECT_THAT(groups(gpus(6), {model("wide", 9, 5, 1, 4), model("small", 1, 3, 0, 1)}),
              ElementsAre(Pair("small", 2), Pair("wide", 1)));
}

TEST(Budget, a_group_larger_than_the_whole_budget_holds_nobody_up) {
  EXPECT_THAT(groups(gpus(6), {model("huge", 9, 1, 0, 8), model("small", 1, 1, 0, 1)}),
              ElementsAre(Pair("huge", 0), Pair("small", 1)));
}

TEST(Budget, the_number_of_models_counts_those_that_run) {
  const api::TenantBudget two{.models = 2, .resources = {}};
  EXPECT_THAT(groups(two, {model("a", 9, 1, 1, 1), model("b", 8, 0, 0, 1), model("c", 7, 2, 0, 1),
                           model("d", 6, 1, 0, 1)}),
              ElementsAre(Pair("a", 1), Pair("b", 0), Pair("c", 2), Pair("d", 0)));
  EXPECT_THAT(groups({.models = 0, .resources = {}}, {model("a", 9, 1, 0, 1)}),
              ElementsAre(Pair("a", 0)));
}

TEST(Budget, a_model_starts_when_another_makes_room) {
  std::vector<BudgetModel> models = {model("a", 9, 1, 1, 4), model("b", 5, 1, 0, 4)};
  EXPECT_THAT(groups(gpus(4), models), ElementsAre(Pair("a", 1), Pair("b", 0)));
  models.erase(models.begin());
  EXPECT_THAT(groups(gpus(4), models), ElementsAre(Pair("b", 1)));
}

TEST(Budget, what_is_used_is_what_is_held_and_given) {
  const auto result = budget(gpus(9), {model("a", 9, 1, 2, 4), model("b", 5, 3, 0, 1)});
  EXPECT_EQ(result.used.at(kGpu), 9000);
}

TEST(Budget, the_reason_names_the_tenant_and_the_resource) {
  const auto shares =
      budget(gpus(6), {model("a", 9, 3, 1, 4), model("b", 1, 1, 0, 4), model("c", 0, 1, 0, 1)})
          .shares;
  EXPECT_THAT(why_less("t", gpus(6), shares.at("ns/a"), 3),
              HasSubstr("tenant t's budget of 6 nvidia.com/gpu is used up: 1 of 3 groups may run"));
  EXPECT_THAT(why_less("t", gpus(6), shares.at("ns/c"), 1), HasSubstr("ns/b, which is older"));
  EXPECT_THAT(why_less("t", {}, {.groups = 1, .short_of = "", .waits_for = ""}, 1), IsEmpty());
}

TEST(Budget, a_group_needs_what_its_pods_request_or_the_defaults) {
  api::Spec spec;
  spec.parallelism = {.tensor = 4, .ranks_per_pod = 2};
  spec.pod_template.requests = {{"cpu", "2"}};
  spec.pod_template.limits = {{"cpu", "4"}, {kGpu, "2"}};
  Amounts group = group_demand(spec);
  EXPECT_EQ(group.at("cpu"), 4000) << "two pods";
  EXPECT_EQ(group.at(kGpu), 4000) << "a limit without a request";
  EXPECT_EQ(group.at("memory"), 2 * *api::milli_of(kDefaultMemory));
  spec.pod_template = {};
  spec.accelerator.resource = kGpu;
  EXPECT_EQ(group_demand(spec).at(kGpu), 4000) << "one for each rank";
}

}  // namespace
}  // namespace dsm::plan
