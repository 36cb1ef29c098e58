// The parts of the server that need no socket: answers, status, drain.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "worker/server/api_error.h"
#include "worker/server/api_response.h"
#include "worker/server/drain.h"
#include "worker/server/worker_status.h"

namespace dsm::server {
namespace {

using nlohmann::json;

TEST(ApiResponse, an_error_has_openais_shape) {
  const auto response = error_response(
      {.status = 429, .message = "full", .param = "", .code = "queue_full", .retry_after_s = 3});
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("Retry-After"), "3");
  EXPECT_EQ(json::parse(response.body),
            json::parse(R"({"error": {"message": "full", "type": "rate_limit_error", "param": null,
                                      "code": "queue_full"}})"));
}

TEST(WorkerStatus, a_line_tells_everything_the_operator_reads) {
  WorkerView view;
  view.leader = true;
  view.group.phase = "Ready";
  view.group.epoch = 3;
  view.group.ranks = {
      {.rank = 0, .phase = "Ready", .loaded_bytes = 5, .total_bytes = 6, .error = ""},
      {.rank = 1, .phase = "Ready", .loaded_bytes = 6, .total_bytes = 6, .error = ""}};
  view.engine.emplace();
  view.engine->serving = true;
  view.engine->waiting = 2;
  view.engine->kv_blocks_used = 1;
  view.engine->kv_slots_empty = 24;
  view.queue_age_s = 7;
  view.tokens_per_second = 12.54;
  view.max_model_len = 2048;
  const std::string text =
      status_json(view, {.model = "m", .ns = "n", .group = "g", .revision = "r", .pod = "p"});
  const json line = json::parse(with_time(text, WallTime(Seconds(784111777))));
  EXPECT_EQ(line["phase"], "Ready");
  EXPECT_EQ(line["epoch"], 3);
  EXPECT_EQ(line["loadedBytes"], 11);
  EXPECT_EQ(line["totalBytes"], 12);
  EXPECT_EQ(line["queueDepth"], 2);
  EXPECT_EQ(line["queueAgeSeconds"], 7);
  EXPECT_EQ(line["kvUsed"], 64);
  EXPECT_EQ(line["kvEmpty"], 24);
  EXPECT_EQ(line["tokensPerSecond"], 12.5);
  EXPECT_EQ(line["ranks"][1]["rank"], 1);
  EXPECT_EQ(line["time"], "1994-11-06T08:49:37Z");
  EXPECT_EQ(with_time("{\"a\":1}", WallTime()), R"({"a":1,"time":"1970-01-01T00:00:00Z"})")
      << "the time is last: the operator compares lines without it";
  view.draining = true;
  EXPECT_EQ(json::parse(status_json(view, {}))["phase"], "Draining");
}

TEST(WorkerStatus, a_leader_is_not_ready_before_the_probe_is_answered) {
  WorkerView view;
  view.leader = true;
  view.group.phase = "Ready";
  view.group.reason = "Formed";
  view.engine.emplace();
  const json probing = json::parse(status_json(view, {}));
  EXPECT_EQ(probing["phase"], "Rendezvous");
  EXPECT_EQ(probing["reason"], "Probing");
  EXPECT_EQ(ready_health(view).reason, "Probing");
  view.group.phase = "Failed";
  view.group.reason = "ProbeFailed";
  EXPECT_EQ(json::parse(status_json(view, {}))["reason"], "ProbeFailed");
  EXPECT_EQ(ready_health(view).reason, "ProbeFailed");
  // Followers have no engine.
  view.leader = false;
  view.group.phase = "Ready";
  EXPECT_TRUE(ready_health(view).good);
}

TEST(WorkerStatus, tells_how_each_ranks_device_is_and_why_a_person_should_look) {
  WorkerView view;
  view.group.phase = "Ready";
  view.group.reason = "Formed";
  view.group.ranks.resize(3);
  view.group.ranks[2].rank = 2;
  view.group.ranks[1].device = {.level = health::Level::kHealthy,
                                .device = "GPU 1",
                                .message = "",
                                .problems = {},
                                .utilisation_percent = 87,
                                .temperature_celsius = 61,
                                .power_watts = 412,
                                .memory_used = 5,
                                .memory_total = 9,
                                .memory_allocated = 4,
                                .memory_fragmented = 1,
                                .signs = {},
                                .xids = {}};
  json line = json::parse(status_json(view, {}));
  EXPECT_EQ(line["reason"], "Formed");
  EXPECT_FALSE(line["ranks"][0].contains("device")) << "a CPU is nothing to tell of";
  EXPECT_EQ(
      line["ranks"][1]["device"],
      json::parse(
          R"({"name":"GPU 1","health":"Healthy","message":"","problems":[],"utilisationPercent":87,
                            "temperatureCelsius":61,"powerWatts":412,"memoryUsedBytes":5,
                            "memoryTotalBytes":9,"memoryAllocatedBytes":4,"memoryFragmentedBytes":1,"xids":[]})"));
  view.group.ranks[2].device.level = health::Level::kDegraded;
  view.group.ranks[2].device.message = "GPU 2: hot";
  line = json::parse(status_json(view, {}));
  EXPECT_EQ(line["phase"], "Ready");
  EXPECT_EQ(line["reason"], "DeviceDegraded");
  EXPECT_EQ(line["message"], "rank 2: GPU 2: hot");
  EXPECT_TRUE(ready_health(view).good);
  view.draining = true;
  EXPECT_EQ(json::parse(status_json(view, {}))["reason"], "Draining");
}

TEST(WorkerStatus, the_three_health_answers_are_different_questions) {
  WorkerView view;
  EXPECT_FALSE(startup_health(view).good);
  EXPECT_FALSE(ready_health(view).good);
  EXPECT_TRUE(live_health(view).good);
  view.leader = true;
  view.group.loaded = true;
  view.group.phase = "Rendezvous";
  EXPECT_TRUE(startup_health(view).good);
  EXPECT_FALSE(ready_health(view).good);
  view.group.phase = "Ready";
  EXPECT_FALSE(ready_health(view).good) << "the engine does not serve yet";
  view.engine.emplace();
  view.engine->serving = true;
  EXPECT_TRUE(ready_health(view).good);
  view.draining = true;
  EXPECT_FALSE(ready_health(view).good);
  EXPECT_TRUE(live_health(view).good);
  view.engine_stuck = true;
  EXPECT_FALSE(live_health(view).good);
}

TEST(Drain, accepts_for_a_while_then_refuses_and_waits_for_what_runs) {
  ManualClock clock;
  Drain drain({.unready = Millis(5000), .finish = Millis(60'000)}, clock);
  int told = 0;
  drain.on_begin([&] { ++told; });
  EXPECT_TRUE(drain.enter());
  drain.begin();
  drain.begin();
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(drain.begun());
  EXPECT_TRUE(drain.enter());
  clock.advance(Millis(5000));
  EXPECT_FALSE(drain.enter());
  std::thread last([&] {
    drain.leave();
    drain.leave();
  });
  EXPECT_TRUE(drain.wait());
  last.join();
}

TEST(Drain, accepts_for_as_long_as_somebody_asks) {
  ManualClock clock;
  Drain drain({.unready = Millis(5000), .finish = Millis(60'000)}, clock);
  drain.begin();
  for (int i = 0; i < 3; ++i) {
    clock.advance(Millis(4000));
    EXPECT_TRUE(drain.enter());
    drain.leave();
  }
  clock.advance(Millis(5000));
  EXPECT_FALSE(drain.enter());
  EXPECT_TRUE(drain.wait());
}

TEST(Drain, leaves_half_of_its_time_to_what_was_accepted_last) {
  ManualClock clock;
  Drain drain({.unready = Millis(5000), .finish = Millis(20'000)}, clock);
  drain.begin();
  int accepted = 0;
  for (; drain.enter(); ++accepted) clock.advance(Millis(1000));
  EXPECT_EQ(accepted, 15);
  std::thread last([&] {
    while (drain.in_flight() > 0) drain.leave();
  });
  EXPECT_TRUE(drain.wait());
  last.join();
}

TEST(Drain, gives_up_at_the_limit) {
  ManualClock clock;
  Drain drain({.unready = Millis(5000), .finish = Millis(60'000)}, clock);
  EXPECT_TRUE(drain.enter());
  drain.begin();
  clock.advance(Millis(65'000));
  EXPECT_FALSE(drain.wait());
}

TEST(Drain, can_be_hurried_and_can_skip_the_announcement) {
  ManualClock clock;
  Drain hurried({.unready = Millis(5000), .finish = Millis(60'000)}, clock);
  EXPECT_TRUE(hurried.enter());
  hurried.begin();
  hurried.hurry();
  EXPECT_FALSE(hurried.enter());
  EXPECT_FALSE(hurried.wait());
  Drain at_once({.unready = Millis(5000), .finish = Millis(60'000)}, clock);
  at_once.begin(/*at_once=*/true);
  EXPECT_FALSE(at_once.enter());
  EXPECT_TRUE(at_once.wait());
}

}  // namespace
}  // namespace dsm::server
