// The Responses, Messages and simple APIs over the wire.
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The names of a stream's events, each run of the same one once.
std::vector<std::string> event_names(const std::string& body) {
  std::vector<std::string> names;
  std::istringstream lines(body);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("event: ")) continue;
    const std::string name = line.substr(7);
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}
// The data of events, in order.
std::vector<json> event_data(const std::string& body) {
  std::vector<json> all;
  for (const json& event : events(body)) {
    if (event.is_object()) all.push_back(event);
  }
  return all;
}

const std::string kMessageBody =
    R"({"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}])";

TEST_F(WorkerServerTest, answers_a_response_whole_and_streamed) {
  start();
  say("let me see</think>one two");
  const std::string body = R"({"model": "tiny", "input": "hi", "reasoning": {"effort": "high"})";
  const Answer answer = post("/v1/responses", body + "}");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json whole = answer.parsed();
  EXPECT_EQ(whole["object"], "response");
  EXPECT_EQ(whole["status"], "completed");
  EXPECT_EQ(whole["output"][0]["content"][0]["text"], "let me see");
  EXPECT_EQ(whole["output"][1]["content"][0]["text"], "one two");
  EXPECT_EQ(whole["usage"]["input_tokens"], runner.prompts().at(0).size());
  EXPECT_THAT(answer.head, HasSubstr("X-Request-Id: req-"));
  const Answer streamed = post("/v1/responses", body + R"(, "stream": true})");
  EXPECT_THAT(event_names(streamed.body),
              ElementsAre("response.created", "response.in_progress", "response.output_item.added",
                          "response.content_part.added", "response.reasoning_text.delta",
                          "response.reasoning_text.done", "response.content_part.done",
                          "response.output_item.done", "response.output_item.added",
                          "response.content_part.added", "response.output_text.delta",
                          "response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.completed"));
  const json last = event_data(streamed.body).back()["response"];
  EXPECT_EQ(last["output"][1]["content"], whole["output"][1]["content"]);
  EXPECT_EQ(last["usage"], whole["usage"]);
}

TEST_F(WorkerServerTest, answers_a_message_whole_and_streamed) {
  start();
  say("one two three");
  const Answer answer = post("/v1/messages", kMessageBody + R"(, "stop_sequences": [" thr"]})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json whole = answer.parsed();
  EXPECT_EQ(whole["content"], json::parse(R"([{"type": "text", "text": "one two"}])"));
  EXPECT_EQ(whole["stop_reason"], "stop_sequence");
  EXPECT_EQ(whole["stop_sequence"], " thr");
  const Answer streamed = post("/v1/messages", kMessageBody + R"(, "stream": true})");
  EXPECT_THAT(event_names(streamed.body),
              ElementsAre("message_start", "content_block_start", "content_block_delta",
                          "content_block_stop", "message_delta", "message_stop"));
  std::string text;
  for (const json& event : event_data(streamed.body)) {
    if (event["type"] == "content_block_delta") text += event["delta"]["text"].get<std::string>();
    if (event["type"] == "message_delta") {
      EXPECT_EQ(event["delta"]["stop_reason"], "end_turn");
      EXPECT_EQ(event["usage"]["output_tokens"], ids("one two three").size());
    }
  }
  EXPECT_EQ(text, "one two three");
}

TEST_F(WorkerServerTest, errors_of_messages_have_anthropics_shape) {
  start();
  const auto type = [](const Answer& answer) {
    const json body = answer.parsed();
    EXPECT_EQ(body["type"], "error");
    return std::to_string(answer.status) + " " + body["error"]["type"].get<std::string>();
  };
  EXPECT_EQ(type(post("/v1/messages", "{}")), "400 invalid_request_error");
  EXPECT_EQ(type(post("/v1/messages", R"({"model": "other", "max_tokens": 1, "messages": [
              {"role": "user", "content": "hi"}]})")),
            "404 not_found_error");
  EXPECT_EQ(type(post("/v1/messages/count_tokens", "[]")), "400 invalid_request_error");
  runner.fail_next({ErrorKind::kInternal, "the device broke", 0});
  EXPECT_EQ(type(post("/v1/messages", kMessageBody + "}")), "500 api_error");
  api->stop();
  EXPECT_EQ(type(post("/v1/messages", kMessageBody + "}")), "503 overloaded_error");
}

TEST_F(WorkerServerTest, a_message_that_waits_long_is_pinged_and_can_fail_in_mid_stream) {
  start();
  runner.permit(0);
  auto client = send("POST", "/v1/messages", kMessageBody + R"(, "stream": true})");
  wait_until([&] { return runner.submitted() == 1; });
  clock.advance(Generation::kKeepAlive + Millis(1000));
  client.read_until("event: ping\n");
  runner.fail_next({ErrorKind::kInternal, "the device broke", 0});
  const std::string rest = client.read_to_end();
  EXPECT_THAT(rest, HasSubstr("event: error\n"));
  EXPECT_THAT(rest, HasSubstr("the device broke"));
}

TEST_F(WorkerServerTest, counts_the_tokens_of_messages) {
  start();
  post("/v1/messages", kMessageBody + "}");
  const json counted = post("/v1/messages/count_tokens", kMessageBody + "}").parsed();
  EXPECT_EQ(counted["input_tokens"], runner.prompts().at(0).size());
}

TEST_F(WorkerServerTest, tokenizes_texts_and_chats_and_back) {
  start();
  const json text =
      post("/tokenize", R"({"prompt": "one two", "return_token_strs": true})").parsed();
  EXPECT_EQ(text["tokens"], json(model->tokenizer.encode_prompt("one two")));
  EXPECT_EQ(text["count"], text["tokens"].size());
  EXPECT_EQ(text["token_strs"].size(), text["tokens"].size());
  EXPECT_EQ(text["max_model_len"], kContext);
  const json plain =
      post("/tokenize", R"({"prompt": "one two", "add_special_tokens": false})").parsed();
  EXPECT_EQ(plain["tokens"], json(ids("one two")));
  const json again = post("/detokenize", json{{"tokens", plain["tokens"]}}.dump()).parsed();
  EXPECT_EQ(again["prompt"], "one two");
  chat();
  EXPECT_EQ(post("/tokenize", chat_body()).parsed()["tokens"], json(runner.prompts().at(0)));
  EXPECT_EQ(post("/tokenize", R"({"prompt": "a", "model": "other"})").status, 404);
  EXPECT_EQ(post("/detokenize", R"({"tokens": [99999]})").status, 400);
}

TEST_F(WorkerServerTest, infers_from_a_prompt_alone) {
  start();
  const json whole = post("/v1/inference", R"({"prompt": "hi"})").parsed();
  EXPECT_EQ(whole["text"], "hello");
  EXPECT_EQ(whole["finish_reason"], "stop");
  EXPECT_EQ(runner.prompts().at(0),
            ids("<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>"));
  std::string text;
  for (const json& event :
       event_data(post("/v1/inference", R"({"prompt": "hi", "stream": true})").body)) {
    text += event.value("text", "");
  }
  EXPECT_EQ(text, "hello");
  EXPECT_EQ(post("/v1/inference", R"({"prompt": 1})").parsed()["error"]["param"], "prompt");
}

TEST_F(WorkerServerTest, deepseeks_beta_paths_are_the_same_api) {
  start();
  EXPECT_EQ(post("/beta/chat/completions", chat_body()).parsed()["object"], "chat.completion");
  EXPECT_EQ(post("/beta/completions", R"({"model": "tiny", "prompt": "a"})").parsed()["object"],
            "text_completion");
}

TEST_F(WorkerServerTest, before_the_model_serves_every_api_refuses_in_its_own_shape) {
  start({.serve = false});
  EXPECT_EQ(post("/v1/messages", "{}").parsed()["error"]["type"], "overloaded_error");
  EXPECT_EQ(post("/v1/responses", "{}").parsed()["error"]["code"], "unavailable");
  EXPECT_EQ(post("/tokenize", "{}").status, 503);
}

}  // namespace
}  // namespace dsm::server
