// The whole server over real sockets, with the real engine and tokenizer and a model that says what
// the test tells it to. For the tests of this folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/http/test_socket.h"
#include "worker/server/scripted_runner.h"
#include "worker/server/worker_server.h"

namespace dsm::server {

using http::TestSocket;
using nlohmann::json;

inline constexpr engine::TokenId kEos = 1;
inline constexpr int kContext = 512;

struct Answer {
  int status = 0;
  std::string head;
  std::string body;  // without the chunks' framing
  json parsed() const { return json::parse(body); }
};

inline Answer parse_answer(const std::string& text) {
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
inline std::vector<json> events(const std::string& body) {
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
    std::shared_ptr<Adapters> adapters = nullptr;
    std::size_t unread_bytes = kUnreadBytes;
    bool prefix_caching = false;
    bool await_keys = false;
    bool can_sleep = true;
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
                                                      .defaults = {.temperature = 0},
                                                      .adapters = setup.adapters});
    drain = std::make_unique<Drain>(setup.drain, clock);
    metrics = std::make_unique<WorkerMetrics>(registry, "tiny", kContext, 64,
                                              setup.adapters ? setup.adapters->limit() : 0);
    engine::SchedulerConfig config{.max_num_seqs = setup.max_num_seqs,
                                   .max_batch_tokens = 2048,
                                   .max_model_len = kContext,
                                   .num_blocks = 64,
                                   .prefix_caching = setup.prefix_caching,
                                   .max_waiting = setup.max_waiting};
    say("hello");
    the_engine = std::make_unique<engine::Engine>(config, runner, system_clock, Logger());
    wait_until([&] { return the_engine->stats().serving; });
    api = std::make_unique<Api>(*model, *the_engine, *metrics, *drain, clock, Logger(),
                                setup.unread_bytes);
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
            .await_keys = setup.await_keys,
            .can_sleep = setup.can_sleep,
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
  Answer post(const std::string& path, const std::string& body) const {
    return parse_answer(send("POST", path, body).read_to_end());
  }
  Answer complete(const std::string& body) const { return post("/v1/completions", body); }

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

}  // namespace dsm::server
