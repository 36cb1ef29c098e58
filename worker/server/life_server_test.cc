// Requests that wait, fail or are left, and a server that comes and goes.
#include <atomic>

#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using ::testing::HasSubstr;

TEST_F(WorkerServerTest, says_429_when_the_queue_is_full) {
  start({.max_waiting = 1, .max_num_seqs = 1});
  say("one two three four");
  const auto running = send_and_begin();
  const auto queued = send_chat();
  wait_until([&] { return the_engine->stats().waiting == 1; });
  const Answer refused = chat();
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.parsed()["error"]["code"], "queue_full");
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: 1"));
}

TEST_F(WorkerServerTest, a_client_that_leaves_ends_its_request_wherever_it_stands) {
  start({.max_num_seqs = 2});
  say("one two three four five six seven eight");
  auto streaming = send_and_begin(R"("stream": true)");
  streaming.read_until("assistant");
  // The step that is waiting has the first alone; the second joins with the next.
  auto waiting = send_chat();
  wait_until([&] { return the_engine->stats().waiting == 1; });
  runner.permit(2);
  wait_until([&] { return the_engine->stats().running == 2; });
  auto queued = send_chat();
  wait_until([&] { return the_engine->stats().waiting == 1; });
  streaming.close();
  waiting.close();
  queued.close();
  wait_until([&] { return drain->in_flight() == 0; });
  runner.permit(-1);
  wait_until([&] { return engine_idle(); });
  EXPECT_LT(the_engine->stats().generation_tokens,
            ids("one two three four five six seven eight").size());
}

// A client that takes nothing of its answer.
class DeafClient final : public http::Exchange {
 public:
  explicit DeafClient(std::string body) { request_.body = std::move(body); }

  const http::Request& request() const override { return request_; }
  void respond(http::Response /*response*/) override {}
  void start(int /*status*/, http::Headers /*headers*/) override {}
  void write(std::string chunk) override { unread_ += chunk.size(); }
  void finish() override { finished_ = true; }
  void abort() override { aborted_ = true; }
  void on_close(std::function<void()> /*callback*/) override {}
  bool closed() const override { return aborted_; }
  std::size_t buffered_bytes() const override { return unread_; }
  bool finished() const { return finished_; }

 private:
  http::Request request_;
  std::atomic<std::size_t> unread_ = 0;
  std::atomic<bool> finished_ = false;
  std::atomic<bool> aborted_ = false;
};

TEST_F(WorkerServerTest, a_client_that_stops_reading_its_stream_is_cut_off) {
  start({.unread_bytes = 2000});
  std::string text;
  for (int i = 0; i < 100; ++i) text += " word";
  say(text);
  runner.permit(60);
  const auto deaf = std::make_shared<DeafClient>(chat_body(R"("stream": true)"));
  api->chat(deaf);
  wait_until([&] { return drain->in_flight() == 0; });
  EXPECT_TRUE(deaf->closed());
  EXPECT_FALSE(deaf->finished());
  EXPECT_LT(deaf->buffered_bytes(), 3000U);
  runner.permit(-1);
  wait_until([&] { return engine_idle(); });
  EXPECT_LT(the_engine->stats().generation_tokens, 70U);
  const std::string numbers = get("/metrics").body;
  EXPECT_THAT(numbers,
              HasSubstr(R"(dsm_requests_finished_total{model="tiny",reason="slow_reader"} 1)"));
  EXPECT_THAT(numbers, HasSubstr("vllm:request_success_total{engine=\"0\",finished_reason="
                                 "\"abort\",model_name=\"tiny\"} 1"));
}

TEST_F(WorkerServerTest, what_is_sent_at_once_may_be_longer_than_what_may_be_unread) {
  start({.unread_bytes = 1});
  runner.permit(1);
  const auto deaf = std::make_shared<DeafClient>(chat_body(R"("stream": true)"));
  api->chat(deaf);
  wait_until([&] { return deaf->buffered_bytes() > 100; });
  EXPECT_FALSE(deaf->closed());
  runner.permit(-1);
  wait_until([&] { return drain->in_flight() == 0; });
}

TEST_F(WorkerServerTest, an_answer_that_is_sent_whole_may_be_read_at_any_time) {
  start({.unread_bytes = 1});
  say(std::string(200, 'x'));
  EXPECT_EQ(chat().status, 200);
}

TEST_F(WorkerServerTest, a_failure_before_the_first_token_is_a_500) {
  start();
  runner.fail_next({ErrorKind::kInternal, "the device broke", 0});
  const Answer answer = chat(R"("stream": true)");
  EXPECT_EQ(answer.status, 500);
  EXPECT_THAT(answer.parsed()["error"]["message"].get<std::string>(),
              HasSubstr("the device broke"));
}

TEST_F(WorkerServerTest, a_failure_in_mid_stream_is_an_event_and_the_end) {
  start();
  say("one two three four");
  auto client = send_and_begin(R"("stream": true)");
  const std::string begin = client.read_until("assistant");
  runner.fail_next({ErrorKind::kInternal, "the device broke", 0});
  const auto all = events(parse_answer(begin + client.read_to_end()).body);
  EXPECT_THAT(all.back()["error"]["message"].get<std::string>(), HasSubstr("the device broke"));
  EXPECT_EQ(all.back()["error"]["type"], "server_error");
}

TEST_F(WorkerServerTest, a_stream_that_waits_long_gets_comments) {
  start();
  runner.permit(0);
  auto client = send_chat(R"("stream": true)");
  wait_until([&] { return runner.submitted() == 1; });
  clock.advance(Generation::kKeepAlive + Millis(1000));
  EXPECT_THAT(client.read_until(": keep-alive\n\n"), HasSubstr("HTTP/1.1 200 OK"));
  runner.permit(-1);
  EXPECT_THAT(client.read_to_end(), HasSubstr("data: [DONE]"));
}

TEST_F(WorkerServerTest, before_the_model_serves_it_says_503_and_is_not_ready) {
  start({.serve = false});
  EXPECT_EQ(get("/health/startup").status, 503);
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_EQ(get("/health/live").status, 200);
  EXPECT_EQ(get("/v1/models").status, 503);
  const Answer refused = chat();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: 2"));
  serve();
  EXPECT_EQ(get("/health/startup").status, 200);
  EXPECT_EQ(get("/health/ready").status, 200);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/v1/models").status, 200);
}

TEST_F(WorkerServerTest, a_drain_first_announces_itself_then_refuses_and_lets_finish) {
  start({.drain = {.unready = Millis(5000), .finish = Millis(60'000)}});
  runner.permit(0);
  auto running = send_chat();
  wait_until([&] { return drain->in_flight() == 1; });
  drain->begin();
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_EQ(get("/health/live").status, 200);
  auto late = send_chat();
  wait_until([&] { return drain->in_flight() == 2; });
  clock.advance(Millis(5000));
  const Answer refused = chat();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After: "));
  runner.permit(-1);
  EXPECT_TRUE(drain->wait());
  EXPECT_EQ(parse_answer(running.read_to_end()).status, 200);
  const Answer last = parse_answer(late.read_to_end());
  EXPECT_EQ(last.status, 200);
  EXPECT_THAT(last.head, HasSubstr("Connection: close"));
}

TEST_F(WorkerServerTest, stopping_ends_what_runs_with_a_503) {
  start();
  runner.permit(0);
  auto client = send_chat();
  wait_until([&] { return runner.submitted() == 1; });
  api->stop();
  EXPECT_EQ(parse_answer(client.read_to_end()).status, 503);
  EXPECT_EQ(chat().status, 503);
}

}  // namespace
}  // namespace dsm::server
