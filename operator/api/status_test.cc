#include "operator/api/status.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "operator/api/reasons.h"

namespace dsm::api {
namespace {

ModelStatus example() {
  ModelStatus s;
  s.observed_generation = 4;
  s.replicas = 2;
  s.ready_replicas = 1;
  s.updated_replicas = 1;
  s.ready = "1/2";
  s.selector = "a=b";
  s.queue_depth = 7;
  s.current_revision = "11111111";
  s.updated_revision = "22222222";
  s.endpoint = "http://m.ns.svc";
  s.capacity = {1024, 8192, 120};
  s.cold_start_seconds = 95;
  s.groups.push_back({"m-22222222-0",
                      "22222222",
                      "Loading",
                      "LoadingWeights",
                      "1 of 2 bytes",
                      {"n1", "n2"},
                      1,
                      2,
                      3,
                      1,
                      true,
                      {{1, "GPU 3", "n1", "Degraded", {"RowRemapPending", "Hot"}}}});
  s.backoff = Backoff{"CrashLoop", 2, "2026-01-01T00:00:00Z", "m-11111111-0 kept ending"};
  s.rollback = Rollback{"22222222@2026-01-01T00:00:00Z", "22222222", "11111111", true, "m"};
  s.avoided_nodes.push_back({"n1", "2026-01-01T01:00:00Z"});
  s.conditions.push_back(
      {"Ready", Truth::kFalse, 4, "2026-01-01T00:00:00Z", "LoadingWeights", "m"});
  return s;
}

TEST(Status, every_field_survives_json) {
  EXPECT_EQ(to_json(parse_status(to_json(example()))), to_json(example()));
  EXPECT_EQ(to_json(parse_status(nlohmann::json())), to_json(ModelStatus{}));
}

TEST(Status, fields_of_a_wrong_type_are_read_as_absent) {
  const auto status = parse_status({{"replicas", "two"}, {"groups", 3}, {"conditions", {1, 2}}});
  EXPECT_EQ(status.replicas, 0);
  EXPECT_TRUE(status.groups.empty());
  EXPECT_TRUE(status.conditions.empty());
}

TEST(Conditions, the_time_of_transition_moves_only_with_the_truth) {
  ModelStatus s;
  const WallTime start = from_rfc3339("2026-01-01T00:00:00Z");
  set_condition(s, {"Ready", Truth::kFalse, 1, "", "A", "a"}, start);
  set_condition(s, {"Ready", Truth::kFalse, 2, "", "B", "b"}, start + Seconds(5));
  ASSERT_NE(find_condition(s, kReady), nullptr);
  EXPECT_EQ(find_condition(s, kReady)->last_transition, "2026-01-01T00:00:00Z");
  EXPECT_EQ(find_condition(s, kReady)->reason, "B");
  set_condition(s, {"Ready", Truth::kTrue, 2, "", "C", "c"}, start + Seconds(9));
  EXPECT_EQ(find_condition(s, kReady)->last_transition, "2026-01-01T00:00:09Z");
  EXPECT_EQ(s.conditions.size(), 1U);
}

TEST(Status, fast_numbers_alone_are_told_apart_from_news) {
  ModelStatus numbers = example();
  numbers.queue_depth = 9;
  numbers.capacity.tokens_per_second = 5;
  numbers.groups[0].loaded_bytes = 2;
  EXPECT_TRUE(same_but_numbers(example(), numbers));
  ModelStatus news = example();
  news.groups[0].phase = "Ready";
  EXPECT_FALSE(same_but_numbers(example(), news));
}

TEST(Status, progress_of_groups_is_told_apart_from_what_they_come_to) {
  ModelStatus progress = example();
  progress.groups[0].phase = "Ready";
  progress.groups[0].served = true;
  progress.ready_replicas += 1;
  progress.conditions[0].message = "one more group is ready";
  EXPECT_TRUE(same_but_progress(example(), progress));

  ModelStatus verdict = example();
  Truth& truth = verdict.conditions[0].status;
  truth = truth == Truth::kTrue ? Truth::kFalse : Truth::kTrue;
  EXPECT_FALSE(same_but_progress(example(), verdict));
  ModelStatus restarted = example();
  restarted.groups[0].restarts += 1;
  EXPECT_FALSE(same_but_progress(example(), restarted)) << "it is remembered nowhere else";
  ModelStatus seen = example();
  seen.observed_generation += 1;
  EXPECT_FALSE(same_but_progress(example(), seen));
}

}  // namespace
}  // namespace dsm::api
