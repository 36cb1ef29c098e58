// The whole server over real sockets, with the real engine and tokenizer and a model that says what
// the test tells it to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/http/test_socket.h"
#include "worker/server/scripted_runner.h"
#include "worker/server/worker_server.h"

namespace dsm::server {
namespace {

using http::TestSocket;
using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr engine::TokenId kEos = 1;
constexpr int kContext = 512;

struct Answer {
  int status = 0;
  std::string head;
  std::string body;  // without the chunks' framing
  json parsed() const { return json::parse(body); }
};

Answer parse_answer(const std::string& text) {
  Answer answer;
  const auto end = text.find("\r\n\r\n");
  answer.head = text.substr(0, end);
  answer.status = text.size() > 12 ? std::atoi(text.c_str() + 9) : 0;
  std::string rest = end == std::string::npos ? "" : text.substr(end + 4);
  if (answer.head.find("chunked") == std::string::npos) {
    answer.body = rest;
    return answer;
  }
  while (!rest.empty()) {
    const std::size_t size = std::stoul(rest, nullptr, 16);
    answer.body += rest.substr(rest.find("\r\n") + 2, size);
    rest.erase(0, rest.find("\r\n") + 2 + size + 2);
  }
  return answer;
}

// The events of a stream: JSON, or the text of what is not.
std::vector<json> events(const std::string& body) {
  std::vector<json> all;
  std::istringstream lines(body);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("data: {")) {
      all.push_back(json::parse(line.substr(6)));
    } else if (!line.empty()) {
      all.push_back(line);
    }
  }
  return all;
}

class WorkerServerTest : public ::testing::Test {
 protected:
  struct Setup {
    int max_waiting = 100;
    int max_num_seqs = 4;
    bool serve = true;
    Drain::Limits drain{.unready = Millis(3'600'000), .finish = Millis(3'600'000)};
  };

  void start() { start(Setup()); }
  void start(const Setup& setup) {
    auto tokenizer = text::Tokenizer::load("models/deepseek-tiny/tokenizer.json");
    ASSERT_TRUE(tokenizer.has_value());
    auto chat_template = text::ChatTemplate::select(*tokenizer);
    ASSERT_TRUE(chat_template.has_value());
    model = std::make_unique<ServedModel>(ServedModel{.name = "tiny",
                                                      .created = 7,
                                                      .max_model_len = kContext,
                                                      .vocab_size = 1536,
                                                      .tokenizer = std::move(*tokenizer),
                                                      .chat_template = *chat_template,
                                                      .eos_tokens = {kEos},
                                                      .defaults = {.temperature = 0}});
    drain = std::make_unique<Drain>(setup.drain, clock);
    metrics = std::make_unique<WorkerMetrics>(registry, "tiny", kContext, 64);
    engine::SchedulerConfig config{.max_num_seqs = setup.max_num_seqs,
                                   .max_batch_tokens = 2048,
                                   .max_model_len = kContext,
                                   .num_blocks = 64,
                                   .prefix_caching = false,
                                   .max_waiting = setup.max_waiting};
    say("hello");
    the_engine = std::make_unique<engine::Engine>(config, runner, system_clock, Logger());
    wait_until([&] { return the_engine->stats().serving; });
    api = std::make_unique<Api>(*model, *the_engine, *metrics, *drain, clock, Logger());
    std::string name = (std::filesystem::temp_directory_path() / "dsm-token-XXXXXX").string();
    ::close(mkstemp(name.data()));
    token_file = name;
    std::ofstream(token_file) << "secret\n";
    server = std::make_unique<WorkerServer>(
        WorkerServerOptions{
            .host = "127.0.0.1",
            .port = 0,
            .internal_port = 0,
            .internal_token_file = token_file,
            .max_model_len = kContext,
            .identity = {.model = "m", .ns = "n", .group = "g", .revision = "r", .pod = "p"},
            .version = "1.2.3"},
        registry, *drain, system_clock, Logger());
    const auto started = server->start();
    ASSERT_TRUE(started.has_value()) << started.error().message;
    if (setup.serve) serve();
  }
  void serve() {
    server->watch_group([] {
      GroupView view;
      view.phase = "Ready";
      view.reason = "Formed";
      view.loaded = true;
      return view;
    });
    server->serve(*api, *the_engine, *metrics);
  }
  ~WorkerServerTest() override {
    runner.permit(-1);
    if (api) api->stop();
    if (server) server->stop(0);
    the_engine.reset();
    api.reset();
    std::filesystem::remove(token_file);
  }

  std::vector<engine::TokenId> ids(const std::string& text) const {
    return model->tokenizer.encode(text, text::SpecialTokens::kAllow);
  }
  // The model's answer to everything from now on.
  void say(const std::string& text) {
    auto tokens = ids(text);
    tokens.push_back(kEos);
    runner.say(tokens);
  }

  // Waits for something that another thread does.
  template <typename Condition>
  static void wait_until(const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
  }
  // Sends a request and lets the engine make the step that begins it; then steps wait again.
  TestSocket send_and_begin(const std::string& fields = "") {
    const int before = the_engine->stats().running;
    runner.permit(1);
    TestSocket socket = send_chat(fields);
    // The engine tells its numbers after a step.
    wait_until([&] { return the_engine->stats().running == before + 1; });
    return socket;
  }
  bool engine_idle() const {
    const auto stats = the_engine->stats();
    return stats.running == 0 && stats.waiting == 0 && stats.kv_blocks_used == 0;
  }

  static std::string request(const std::string& method, const std::string& path,
                             const std::string& body, const std::string& headers) {
    return method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  TestSocket send(const std::string& method, const std::string& path, const std::string& body = "",
                  const std::string& headers = "") const {
    TestSocket socket(server->port());
    socket.send(request(method, path, body, headers));
    return socket;
  }
  Answer get(const std::string& path) const {
    return parse_answer(send("GET", path).read_to_end());
  }
  static std::string chat_body(const std::string& fields = "") {
    return R"({"model": "tiny", "messages": [{"role": "user", "content": "hi"}])" +
           (fields.empty() ? "" : ", " + fields) + "}";
  }
  TestSocket send_chat(const std::string& fields = "") const {
    return send("POST", "/v1/chat/completions", chat_body(fields));
  }
  Answer chat(const std::string& fields = "") const {
    return parse_answer(send_chat(fields).read_to_end());
  }
  Answer complete(const std::string& body) const {
    return parse_answer(send("POST", "/v1/completions", body).read_to_end());
  }

  ManualClock clock;  // the Api's and the Drain's
  SystemClock system_clock;
  MetricsRegistry registry;
  ScriptedRunner runner;
  std::string token_file;
  std::unique_ptr<ServedModel> model;
  std::unique_ptr<Drain> drain;
  std::unique_ptr<WorkerMetrics> metrics;
  std::unique_ptr<engine::Engine> the_engine;
  std::unique_ptr<Api> api;
  std::unique_ptr<WorkerServer> server;
};

TEST_F(WorkerServerTest, answers_a_chat) {
  start();
  const Answer answer = chat();
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = answer.parsed();
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["model"], "tiny");
  EXPECT_EQ(body["choices"][0]["message"],
            json::parse(R"({"role": "assistant", "content": "hello"})"));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["completion_tokens"], ids("hello").size());
  EXPECT_EQ(body["usage"]["prompt_tokens"], runner.prompts().at(0).size());
  EXPECT_THAT(answer.head, HasSubstr("X-Request-Id: req-"));
  // The prompt is the template's, and ends with a closed thought.
  EXPECT_EQ(runner.prompts().at(0),
            ids("<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>"));
}

TEST_F(WorkerServerTest, streams_a_chat_in_the_order_that_clients_expect) {
  start();
  const Answer answer = chat(R"("stream": true, "stream_options": {"include_usage": true})");
  ASSERT_EQ(answer.status, 200);
  EXPECT_THAT(answer.head, HasSubstr("Content-Type: text/event-stream"));
  const auto all = events(answer.body);
  ASSERT_GE(all.size(), 5u);
  EXPECT_EQ(all[0]["choices"][0]["delta"], json::parse(R"({"role": "assistant", "content": ""})"));
  std::string text;
  for (std::size_t i = 1; i + 3 < all.size(); ++i) {
    const json& choice = all[i]["choices"][0];
    EXPECT_TRUE(choice["finish_reason"].is_null());
    EXPECT_FALSE(choice["delta"].contains("role"));
    text += choice["delta"]["content"].get<std::string>();
    EXPECT_TRUE(all[i]["usage"].is_null());
  }
  EXPECT_EQ(text, "hello");
  const json& end = all[all.size() - 3];
  EXPECT_EQ(end["choices"][0]["delta"], json::object());
  EXPECT_EQ(end["choices"][0]["finish_reason"], "stop");
  const json& usage = all[all.size() - 2];
  EXPECT_EQ(usage["choices"], json::array());
  EXPECT_EQ(usage["usage"]["completion_tokens"], ids("hello").size());
  EXPECT_EQ(all.back(), "data: [DONE]");
  for (std::size_t i = 0; i + 1 < all.size(); ++i) {
    EXPECT_EQ(all[i]["id"], all[0]["id"]);
    EXPECT_EQ(all[i]["created"], all[0]["created"]);
  }
}

TEST_F(WorkerServerTest, keeps_the_thought_apart_from_the_answer) {
  start();
  say("let me see</think>42");
  const json whole = chat(R"("thinking": {"type": "enabled"})").parsed();
  EXPECT_EQ(whole["choices"][0]["message"]["reasoning_content"], "let me see");
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "42");
  EXPECT_EQ(whole["usage"]["completion_tokens_details"]["reasoning_tokens"],
            ids("let me see</think>").size());
  EXPECT_EQ(runner.prompts().at(0).back(), ids("<think>").at(0));
  std::string reasoning;
  std::string content;
  for (const json& event :
       events(chat(R"("stream": true, "chat_template_kwargs": {"thinking": true})").body)) {
    if (!event.is_object()) continue;
    const json& delta = event["choices"][0]["delta"];
    reasoning += delta.value("reasoning_content", "");
    content += delta.value("content", "");
    EXPECT_THAT(event.dump(), Not(HasSubstr("think>")));
  }
  EXPECT_EQ(reasoning, "let me see");
  EXPECT_EQ(content, "42");
}

TEST_F(WorkerServerTest, cuts_at_a_stop_string_and_never_shows_its_beginning) {
  start();
  say("one two three four");
  const json whole = chat(R"("stop": ["thr", "xyz"])").parsed();
  EXPECT_EQ(whole["choices"][0]["message"]["content"], "one two ");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
  std::string content;
  for (const json& event : events(chat(R"("stream": true, "stop": "three f")").body)) {
    if (event.is_object()) content += event["choices"][0]["delta"].value("content", "");
    EXPECT_THAT(event.dump(), Not(HasSubstr("thr")));
  }
  EXPECT_EQ(content, "one two ");
  wait_until([&] { return engine_idle(); });
}

TEST_F(WorkerServerTest, never_cuts_a_character) {
  start();
  const std::string text = "你好，世界 🎉 é";
  say(text);
  ASSERT_GT(ids(text).size(), 8u) << "some characters are several tokens";
  std::string content;
  for (const json& event : events(chat(R"("stream": true)").body)) {
    if (event.is_object()) content += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(content, text);
}

TEST_F(WorkerServerTest, ends_with_length_at_max_tokens) {
  start();
  say("one two three four five six");
  const json body = chat(R"("max_tokens": 2)").parsed();
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["usage"]["completion_tokens"], 2);
}

TEST_F(WorkerServerTest, passes_sampling_on_and_takes_a_random_seed_when_there_is_none) {
  start();
  chat(R"("temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 5)");
  chat();
  chat();
  const auto sampling = runner.sampling();
  ASSERT_EQ(sampling.size(), 3u);
  EXPECT_FLOAT_EQ(sampling[0].temperature, 0.5F);
  EXPECT_EQ(sampling[0].top_k, 3);
  EXPECT_EQ(sampling[0].seed, 5u);
  EXPECT_EQ(sampling[1].temperature, 0.0F);
  EXPECT_NE(sampling[1].seed, sampling[2].seed);
}

TEST_F(WorkerServerTest, completes_text_texts_and_token_ids) {
  start();
  const json one = complete(R"({"model": "tiny", "prompt": "say"})").parsed();
  EXPECT_EQ(one["object"], "text_completion");
  EXPECT_EQ(one["choices"][0]["text"], "hello");
  EXPECT_EQ(runner.prompts().at(0), model->tokenizer.encode_prompt("say"));
  const json two = complete(R"({"model": "tiny", "prompt": ["a", "b"]})").parsed();
  ASSERT_EQ(two["choices"].size(), 2u);
  EXPECT_EQ(two["choices"][1]["index"], 1);
  EXPECT_EQ(two["choices"][1]["text"], "hello");
  complete(R"({"model": "tiny", "prompt": [5, 6, 7]})");
  EXPECT_THAT(runner.prompts().back(), ElementsAre(5, 6, 7));
  const auto all = events(complete(R"({"model": "tiny", "prompt": "say", "stream": true})").body);
  EXPECT_EQ(all[0]["choices"][0]["text"].get<std::string>().front(), 'h');
  EXPECT_EQ(all.back(), "data: [DONE]");
}

TEST_F(WorkerServerTest, gives_as_many_choices_as_are_asked_for_and_counts_the_prompt_once) {
  start();
  const json body = chat(R"("n": 3, "seed": 5)").parsed();
  ASSERT_EQ(body["choices"].size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["message"]["content"], "hello");
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], runner.prompts().at(0).size());
  EXPECT_EQ(body["usage"]["completion_tokens"], 3 * ids("hello").size());
  const auto sampling = runner.sampling();
  ASSERT_EQ(sampling.size(), 3u);
  EXPECT_EQ(sampling[0].seed, 5u);
  EXPECT_NE(sampling[1].seed, sampling[2].seed);
}

TEST_F(WorkerServerTest, gives_the_prompt_back_where_it_is_asked_for) {
  start();
  const json body = complete(R"({"model": "tiny", "prompt": "say ", "echo": true})").parsed();
  EXPECT_EQ(body["choices"][0]["text"], "say hello");
  EXPECT_EQ(body["usage"]["completion_tokens"], ids("hello").size());
  std::string text;
  for (const json& event : events(
           complete(R"({"model": "tiny", "prompt": "say ", "echo": true, "stream": true})").body)) {
    if (event.is_object()) text += event["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, "say hello");
}

TEST_F(WorkerServerTest, refuses_in_openais_shape) {
  start();
  const auto refusal = [](const Answer& answer) {
    const json error = answer.parsed()["error"];
    return std::to_string(answer.status) + " " + error["param"].dump() + " " + error["code"].dump();
  };
  EXPECT_EQ(refusal(chat(R"("temperature": 9)")), R"(400 "temperature" null)");
  EXPECT_EQ(refusal(chat(R"("n": 17)")), R"(400 "n" null)");
  EXPECT_EQ(refusal(parse_answer(
                send("POST", "/v1/chat/completions", chat_body(), "X-Request-Timeout-Ms: soon\r\n")
                    .read_to_end())),
            R"(400 "X-Request-Timeout-Ms" null)");
  EXPECT_EQ(refusal(complete(R"({"model": "other", "prompt": "a"})")),
            R"(404 "model" "model_not_found")");
  EXPECT_EQ(
      refusal(complete(R"({"model": "tiny", "prompt": ")" + std::string(100'000, 'a') + "\"}")),
      R"(400 "prompt" "context_length_exceeded")");
  std::string long_ids = "[5";
  for (int i = 1; i < kContext; ++i) long_ids += ",5";
  EXPECT_EQ(refusal(complete(R"({"model": "tiny", "prompt": )" + long_ids + "]}")),
            R"(400 "prompt" "context_length_exceeded")");
  EXPECT_EQ(refusal(get("/v1/nothing")), "404 null null");
  EXPECT_EQ(refusal(get("/v1/chat/completions")), "405 null null");
  EXPECT_EQ(refusal(parse_answer(
                send("POST", "/v1/completions", "x", "Content-Length: 99\r\n").read_to_end())),
            "400 null null");
}

TEST_F(WorkerServerTest, lists_its_model) {
  start();
  const json list = get("/v1/models").parsed();
  EXPECT_EQ(list["data"][0]["id"], "tiny");
  EXPECT_EQ(list["data"][0]["max_model_len"], kContext);
  EXPECT_EQ(get("/v1/models/tiny").parsed()["id"], "tiny");
  EXPECT_EQ(get("/v1/models/other").status, 404);
  EXPECT_EQ(get("/version").parsed()["version"], "1.2.3");
}

TEST_F(WorkerServerTest, takes_the_clients_request_id_when_it_is_harmless) {
  start();
  const auto id_header = [&](const std::string& given) {
    const std::string head = parse_answer(send("POST", "/v1/chat/completions", chat_body(),
                                               "X-Request-Id: " + given + "\r\n")
                                              .read_to_end())
                                 .head;
    return head.substr(head.find("X-Request-Id: "));
  };
  EXPECT_THAT(id_header("abc-1"), HasSubstr("X-Request-Id: abc-1"));
  EXPECT_THAT(id_header("a b"), HasSubstr("X-Request-Id: req-"));
}

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

TEST_F(WorkerServerTest, serves_metrics_under_our_names_and_vllms) {
  start();
  chat();
  chat(R"("n": 0)");
  wait_until([&] { return the_engine->stats().generation_tokens > 0 && engine_idle(); });
  const Answer answer = get("/metrics");
  EXPECT_THAT(answer.head, HasSubstr("text/plain; version=0.0.4"));
  for (const char* line :
       {"vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0",
        "vllm:cache_config_info{block_size=\"64\",engine=\"0\",model_name=\"tiny\",num_gpu_blocks="
        "\"64\"} 1",
        "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:inter_token_latency_seconds_bucket{engine=\"0\",model_name=\"tiny\",le=\"0.01\"}",
        "vllm:e2e_request_latency_seconds_count{engine=\"0\",model_name=\"tiny\"} 1",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"tiny\"} 1",
        "dsm_requests_finished_total{model=\"tiny\",reason=\"stop\"} 1",
        "dsm_requests_rejected_total{model=\"tiny\",reason=\"invalid\"} 1",
        "dsm_kv_cache_capacity_tokens{model=\"tiny\"} 4096", "process_open_fds"}) {
    EXPECT_THAT(answer.body, HasSubstr(line));
  }
  EXPECT_THAT(answer.body, HasSubstr("vllm:prompt_tokens_total{engine=\"0\",model_name=\"tiny\"} " +
                                     std::to_string(runner.prompts().at(0).size())));
}

TEST_F(WorkerServerTest, the_internal_port_needs_the_token) {
  start();
  const auto status = [&](const std::string& method, const std::string& path,
                          const std::string& headers) {
    TestSocket socket(server->internal_port());
    socket.send(request(method, path, "", headers));
    return parse_answer(socket.read_until("\r\n\r\n")).status;
  };
  EXPECT_EQ(status("GET", "/internal/status", ""), 401);
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer wrong!\r\n"), 401);
  EXPECT_EQ(status("POST", "/internal/drain", "Authorization: secret\r\n"), 401);
  EXPECT_EQ(get("/internal/status").status, 404) << "not on the public port";
  EXPECT_FALSE(drain->begun());
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer secret\r\n"), 200);
  EXPECT_EQ(status("POST", "/internal/drain", "Authorization: Bearer secret\r\n"), 202);
  EXPECT_TRUE(drain->begun());
  std::ofstream(token_file) << "rotated";
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer secret\r\n"), 401);
  EXPECT_EQ(status("GET", "/internal/status", "Authorization: Bearer rotated\r\n"), 200);
}

TEST_F(WorkerServerTest, the_status_stream_tells_changes_line_by_line) {
  start({.max_num_seqs = 1});
  say("one two three four");
  TestSocket socket(server->internal_port());
  socket.send(request("GET", "/internal/status", "", "Authorization: Bearer secret\r\n"));
  socket.read_until("\r\n\r\n");
  const auto next_line = [&] {
    socket.read_until("\r\n");  // the chunk's size
    return json::parse(socket.read_until("\n"));
  };
  json line = next_line();
  EXPECT_EQ(line["phase"], "Ready");
  EXPECT_EQ(line["revision"], "r");
  EXPECT_EQ(line["running"], 0);
  const auto running = send_and_begin();
  const auto queued = send_chat();
  while (line["running"] != 1 || line["queueDepth"] != 1) {
    socket.read_until("\r\n");
    line = next_line();
  }
  drain->begin();
  while (line["phase"] != "Draining") {
    socket.read_until("\r\n");
    line = next_line();
  }
}

}  // namespace
}  // namespace dsm::server
