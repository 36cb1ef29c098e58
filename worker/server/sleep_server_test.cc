// Sleep and wake over the internal port: who may, what is refused meanwhile, and what is said of
// it.
#include "worker/server/server_fixture.h"
#include "worker/server/sleep_request.h"

namespace dsm::server {
namespace {

using ::testing::HasSubstr;

class SleepTest : public WorkerServerTest {
 protected:
  int tell(const std::string& path, const std::string& token = "secret") const {
    TestSocket socket(server->internal_port());
    socket.send(request("POST", path, "", "Authorization: Bearer " + token + "\r\n"));
    return parse_answer(socket.read_to_end()).status;
  }
  // The ranks are where the engine wants them to be.
  void watch() {
    server->watch_group([this] {
      const bool asleep = runner.asleep();
      GroupView view;
      view.phase = asleep ? "Asleep" : "Ready";
      view.reason = asleep ? "Asleep" : "Formed";
      view.message = asleep ? "all ranks sleep" : "all ranks are connected";
      view.loaded = true;
      return view;
    });
  }
};

TEST_F(SleepTest, a_model_that_sleeps_refuses_requests_until_it_is_woken) {
  start();
  watch();
  ASSERT_EQ(chat().status, 200);
  EXPECT_EQ(tell("/internal/sleep"), 202);
  wait_until([&] { return runner.asleep(); });
  const Answer refused = chat();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.parsed()["error"]["code"], "asleep");
  EXPECT_EQ(refused.parsed()["error"]["type"], "service_unavailable_error");
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: 5"));
  EXPECT_EQ(chat(R"("stream": true)").status, 503);
  EXPECT_EQ(get("/v1/models").status, 200) << "needs no weights";
  const Answer ready = get("/health/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.parsed()["reason"], "Asleep");
  EXPECT_EQ(get("/health/live").status, 200);
  EXPECT_EQ(get("/health/startup").status, 200);
  const json line = json::parse(status_json(server->view(), {}));
  EXPECT_EQ(line["phase"], "Asleep");
  EXPECT_EQ(line["reason"], "Asleep");
  EXPECT_EQ(line["sleep"], true);
  EXPECT_EQ(line["queueDepth"], 0);
  const std::string numbers = get("/metrics").body;
  EXPECT_THAT(numbers, HasSubstr("dsm_asleep{model=\"tiny\"} 1"));
  EXPECT_THAT(numbers, HasSubstr("sleep_state=\"weights_offloaded\"} 1"));
  EXPECT_THAT(numbers, HasSubstr("sleep_state=\"awake\"} 0"));

  EXPECT_EQ(tell("/internal/wake"), 202);
  wait_until([&] { return the_engine->stats().serving; });
  EXPECT_EQ(get("/health/ready").status, 200);
  EXPECT_EQ(chat().status, 200);
  EXPECT_EQ(json::parse(status_json(server->view(), {}))["sleep"], false);
  EXPECT_THAT(get("/metrics").body, HasSubstr("dsm_asleep{model=\"tiny\"} 0"));
}

TEST_F(SleepTest, requests_in_work_are_finished_first) {
  start();
  watch();
  say("one two three four");
  auto running = send_and_begin();
  EXPECT_EQ(tell("/internal/sleep"), 202);
  EXPECT_EQ(chat().status, 503) << "no new one is taken";
  const WorkerView view = server->view();
  EXPECT_EQ(view.phase(), "Asleep");
  EXPECT_EQ(ready_health(view).reason, "FallingAsleep");
  EXPECT_FALSE(runner.asleep());
  runner.permit(-1);
  const Answer answer = parse_answer(running.read_to_end());
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.parsed()["choices"][0]["message"]["content"], "one two three four");
  wait_until([&] { return runner.asleep(); });
}

TEST_F(SleepTest, or_are_ended_where_that_is_asked_for) {
  start();
  watch();
  say("one two three four");
  auto running = send_and_begin();
  EXPECT_EQ(tell("/internal/sleep"), 202);
  EXPECT_EQ(tell("/internal/sleep?level=1&mode=abort"), 202);
  runner.permit(1);  // the step under way
  const Answer answer = parse_answer(running.read_to_end());
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.parsed()["error"]["code"], "asleep");
  wait_until([&] { return runner.asleep(); });
  EXPECT_TRUE(engine_idle());
}

TEST_F(SleepTest, a_model_that_is_not_served_yet_sleeps_when_it_is) {
  start({.serve = false});
  EXPECT_EQ(tell("/internal/sleep"), 202);
  const Answer refused = chat();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.parsed()["error"]["code"], "asleep");
  EXPECT_FALSE(runner.asleep());
  serve();
  wait_until([&] { return runner.asleep(); });
}

TEST_F(SleepTest, who_has_no_token_may_not) {
  start();
  EXPECT_EQ(tell("/internal/sleep", "guess"), 401);
  EXPECT_EQ(tell("/internal/wake", "guess"), 401);
  EXPECT_EQ(tell("/internal/sleep?mode=maybe"), 400);
  EXPECT_EQ(chat().status, 200);
  EXPECT_FALSE(the_engine->stats().sleeps);
}

TEST_F(SleepTest, a_worker_without_sleep_mode_says_so_and_serves_on) {
  start({.can_sleep = false});
  TestSocket socket(server->internal_port());
  socket.send(request("POST", "/internal/sleep", "", "Authorization: Bearer secret\r\n"));
  const Answer refused = parse_answer(socket.read_to_end());
  EXPECT_EQ(refused.status, 409);
  EXPECT_THAT(refused.parsed()["error"]["message"].get<std::string>(), HasSubstr("--sleep-mode"));
  EXPECT_EQ(tell("/internal/wake"), 202);
  EXPECT_EQ(chat().status, 200);
}

TEST_F(SleepTest, a_model_that_sleeps_drains_at_once) {
  start();
  watch();
  tell("/internal/sleep");
  wait_until([&] { return runner.asleep(); });
  drain->begin(/*at_once=*/true);
  EXPECT_TRUE(drain->wait());
  EXPECT_EQ(server->view().phase(), "Draining");
}

TEST(SleepRequest, names_what_it_does_not_know) {
  using engine::SleepMode;
  EXPECT_EQ(parse_sleep(""), SleepMode::kWait);
  EXPECT_EQ(parse_sleep("mode=wait"), SleepMode::kWait);
  EXPECT_EQ(parse_sleep("mode=abort&level=1"), SleepMode::kAbort);
  EXPECT_EQ(parse_sleep("level=2").error().param, "level");
  EXPECT_EQ(parse_sleep("mode").error().param, "mode");
  EXPECT_EQ(parse_sleep("mode=abort&now=1").error().param, "now");
  EXPECT_FALSE(parse_sleep("&").has_value());
}

}  // namespace
}  // namespace dsm::server
