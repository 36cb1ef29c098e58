// The parts of the server that need no socket: requests, answers, status, drain.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "worker/server/api_request.h"
#include "worker/server/api_response.h"
#include "worker/server/drain.h"
#include "worker/server/worker_status.h"

namespace dsm::server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A chat with these fields added.
Parsed<ChatRequest> chat(const std::string& fields, const SamplingDefaults& defaults = {}) {
  return parse_chat(R"({"model": "m", "messages": [{"role": "user", "content": "hi"}])" +
                        (fields.empty() ? "" : ", " + fields) + "}",
                    defaults);
}
// "param: message" of the refusal, or "accepted".
std::string refusal(const std::string& fields) {
  const auto request = chat(fields);
  if (request) return "accepted";
  EXPECT_EQ(request.error().status, 400);
  return request.error().param + ": " + request.error().message;
}
std::string body_refusal(std::string_view body) {
  const auto request = parse_chat(body, {});
  return request ? "accepted" : request.error().param + ": " + request.error().message;
}

TEST(ApiRequest, a_plain_chat_has_the_models_defaults) {
  const auto request = chat("", {.temperature = 0.6F, .top_p = 0.95F, .top_k = 7});
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->model, "m");
  ASSERT_EQ(request->messages.size(), 1u);
  EXPECT_EQ(request->messages[0].content, "hi");
  EXPECT_FLOAT_EQ(request->options.sampling.temperature, 0.6F);
  EXPECT_FLOAT_EQ(request->options.sampling.top_p, 0.95F);
  EXPECT_EQ(request->options.sampling.top_k, 7);
  EXPECT_FALSE(request->options.seed.has_value());
  EXPECT_FALSE(request->options.max_tokens.has_value());
  EXPECT_FALSE(request->template_options.thinking);
}

TEST(ApiRequest, reads_what_it_can_honour) {
  const auto request = chat(
      R"("temperature": 0, "top_p": 0.5, "min_p": 0.1, "top_k": -1, "seed": -3, "max_tokens": 5,
         "max_completion_tokens": 6, "stop": ["a", "", "b"], "stop_token_ids": [7], "stream": true,
         "stream_options": {"include_usage": true}, "ignore_eos": true, "cache_salt": "s",
         "user": "u", "something_new": {"x": 1}, "n": 1, "tools": [], "logit_bias": {},
         "presence_penalty": 0.0, "response_format": {"type": "text"}, "logprobs": null)");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  const GenerationOptions& options = request->options;
  EXPECT_EQ(options.sampling.temperature, 0.0F);
  EXPECT_EQ(options.sampling.top_k, 0);
  EXPECT_EQ(options.seed, static_cast<std::uint64_t>(-3));
  EXPECT_EQ(options.max_tokens, 6);
  EXPECT_THAT(options.stop, ElementsAre("a", "b"));
  EXPECT_THAT(options.stop_token_ids, ElementsAre(7));
  EXPECT_TRUE(options.stream);
  EXPECT_TRUE(options.include_usage);
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_EQ(options.cache_salt, "s");
}

TEST(ApiRequest, refuses_what_it_cannot_honour_by_name) {
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"n", "2"},
           {"logprobs", "true"},
           {"top_logprobs", "3"},
           {"presence_penalty", "0.5"},
           {"frequency_penalty", "-1"},
           {"repetition_penalty", "1.1"},
           {"logit_bias", R"({"1": 2})"},
           {"tools", R"([{"type": "function"}])"},
           {"tool_choice", R"("required")"},
           {"response_format", R"({"type": "json_object"})"},
           {"best_of", "2"},
           {"guided_json", "{}"},
           {"min_tokens", "1"}}) {
    EXPECT_THAT(refusal("\"" + name + "\": " + value),
                HasSubstr(name + ": '" + name + "' is not supported"));
  }
}

TEST(ApiRequest, refuses_wrong_types_and_bounds_by_name) {
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"temperature", "2.1"},
           {"temperature", "-0.1"},
           {"temperature", R"("hot")"},
           {"top_p", "0"},
           {"top_p", "1.5"},
           {"min_p", "-1"},
           {"top_k", "1.5"},
           {"seed", "1e30"},
           {"seed", "18446744073709551615"},
           {"max_tokens", "0"},
           {"max_tokens", "true"},
           {"max_tokens", "3000000000"},
           {"stop", "5"},
           {"stop", "[5]"},
           {"stop",
            R"(["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])"},
           {"stop_token_ids", "[-1]"},
           {"stream", "1"},
           {"stream_options", R"({"include_usage": true})"},
           {"chat_template_kwargs", "[]"},
           {"thinking", "true"},
           {"reasoning_effort", R"("enormous")"}}) {
    EXPECT_THAT(refusal("\"" + name + "\": " + value), ::testing::StartsWith(name + ": ")) << value;
  }
}

TEST(ApiRequest, refuses_bodies_that_are_not_what_they_must_be) {
  EXPECT_THAT(body_refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(body_refusal("[]"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(body_refusal("{\"model\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(body_refusal(std::string(100'000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(body_refusal("{}"), HasSubstr("model: "));
  EXPECT_THAT(body_refusal(R"({"model": "m"})"), HasSubstr("messages: "));
  EXPECT_THAT(body_refusal(R"({"model": "m", "messages": []})"), HasSubstr("messages: "));
  EXPECT_THAT(body_refusal(R"({"model": 5, "messages": []})"), HasSubstr("model: "));
  EXPECT_THAT(body_refusal(R"({"model": "m", "messages": [5]})"), HasSubstr("messages[0]: "));
  EXPECT_THAT(body_refusal(R"({"model": "m", "messages": [{"role": "tool", "content": "x"}]})"),
              HasSubstr("messages[0].role: "));
  EXPECT_THAT(body_refusal(R"({"model": "m", "messages": [{"role": "user"}]})"),
              HasSubstr("messages[0].content: "));
  EXPECT_THAT(body_refusal(R"({"model": "m", "messages": [{"role": "user",
                              "content": [{"type": "image_url", "image_url": {}}]}]})"),
              HasSubstr("messages[0].content: "));
  EXPECT_THAT(body_refusal(R"({"model": "m", "messages": [{"role": "assistant", "content": "",
                              "tool_calls": [{}]}]})"),
              HasSubstr("messages[0].tool_calls: "));
}

TEST(ApiRequest, a_refusal_of_broken_json_does_not_quote_the_body) {
  EXPECT_THAT(body_refusal(R"({"secret words" "x"})"), ::testing::Not(HasSubstr("secret")));
}

TEST(ApiRequest, deep_nesting_inside_a_string_is_only_text) {
  EXPECT_EQ(refusal(R"("user": ")" + std::string(1000, '[') + R"(\"")"), "accepted");
}

TEST(ApiRequest, joins_the_text_parts_of_a_message_and_knows_all_roles) {
  const auto request = parse_chat(
      R"({"model": "m", "messages": [{"role": "developer", "content": "be brief"},
          {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
          {"role": "assistant", "content": null, "reasoning_content": "hm"},
          {"role": "assistant", "content": "c", "tool_calls": null}]})",
      {});
  ASSERT_TRUE(request.has_value()) << request.error().message;
  ASSERT_EQ(request->messages.size(), 4u);
  EXPECT_EQ(request->messages[0].role, text::Role::kSystem);
  EXPECT_EQ(request->messages[1].content, "ab");
  EXPECT_EQ(request->messages[2].content, "");
  EXPECT_EQ(request->messages[3].content, "c");
}

TEST(ApiRequest, thinking_can_be_asked_for_in_several_ways) {
  const auto thinks = [](const std::string& fields) {
    const auto request = chat(fields);
    EXPECT_TRUE(request.has_value()) << request.error().message;
    return request && request->template_options.thinking;
  };
  EXPECT_TRUE(thinks(R"("chat_template_kwargs": {"thinking": true})"));
  EXPECT_TRUE(thinks(R"("chat_template_kwargs": {"enable_thinking": true})"));
  EXPECT_FALSE(thinks(R"("chat_template_kwargs": {"thinking": false, "other": 1})"));
  EXPECT_TRUE(thinks(R"("thinking": {"type": "enabled"})"));
  EXPECT_FALSE(thinks(R"("thinking": {"type": "disabled"})"));
  EXPECT_TRUE(thinks(R"("reasoning_effort": "high")"));
  EXPECT_FALSE(thinks(R"("reasoning_effort": "none")"));
  EXPECT_FALSE(thinks(R"("reasoning_effort": "high", "thinking": {"type": "disabled"})"));
  EXPECT_THAT(
      refusal(R"("thinking": {"type": "enabled"}, "chat_template_kwargs": {"thinking": false})"),
      HasSubstr("contradicts"));
}

TEST(ApiRequest, a_completion_takes_text_texts_and_token_ids) {
  using Ids = std::vector<engine::TokenId>;
  const auto prompts = [](const std::string& prompt) {
    const auto request =
        parse_completion(R"({"model": "m", "prompt": )" + prompt + "}", {}, /*vocab_size=*/10);
    return request ? request->prompts : std::vector<CompletionRequest::Prompt>();
  };
  EXPECT_THAT(prompts(R"("a")"), ElementsAre(CompletionRequest::Prompt("a")));
  EXPECT_THAT(prompts(R"(["a", "b"])"),
              ElementsAre(CompletionRequest::Prompt("a"), CompletionRequest::Prompt("b")));
  EXPECT_THAT(prompts("[1, 9]"), ElementsAre(CompletionRequest::Prompt(Ids{1, 9})));
  EXPECT_THAT(prompts("[[1], [2, 3]]"),
              ElementsAre(CompletionRequest::Prompt(Ids{1}), CompletionRequest::Prompt(Ids{2, 3})));
  for (const char* wrong : {"null", "[]", "5", "[10]", "[-1]", "[1.5]", "[[]]", "[true]", "{}"}) {
    EXPECT_THAT(prompts(wrong), ElementsAre()) << wrong;
  }
}

TEST(ApiRequest, the_generation_config_gives_the_defaults) {
  const auto greedy = parse_generation_config(R"({"do_sample": false, "eos_token_id": 1})");
  ASSERT_TRUE(greedy.has_value());
  EXPECT_EQ(greedy->temperature, 0.0F);
  const auto sampled =
      parse_generation_config(R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95})");
  ASSERT_TRUE(sampled.has_value());
  EXPECT_FLOAT_EQ(sampled->temperature, 0.6F);
  EXPECT_EQ(parse_generation_config("")->temperature, 1.0F);
  EXPECT_FALSE(parse_generation_config("[]").has_value());
  EXPECT_FALSE(parse_generation_config(R"({"temperature": "x"})").has_value());
}

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
  view.engine->waiting = 2;
  view.engine->kv_blocks_used = 1;
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
  EXPECT_EQ(line["kvUsed"], 64);
  EXPECT_EQ(line["tokensPerSecond"], 12.5);
  EXPECT_EQ(line["ranks"][1]["rank"], 1);
  EXPECT_EQ(line["time"], "1994-11-06T08:49:37Z");
  view.draining = true;
  EXPECT_EQ(json::parse(status_json(view, {}))["phase"], "Draining");
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
