// What each API's answers look like, from values: no engine, no socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "worker/server/answer_writer.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

const text::Tokenizer& tokenizer() {
  static const auto loaded = text::Tokenizer::load("models/deepseek-tiny/tokenizer.json");
  return loaded.value();
}

engine::TokenId id_of(const std::string& text) {
  return tokenizer().encode(text, text::SpecialTokens::kAllow).front();
}

const AnswerForm kChat{
    .head = {.kind = ApiKind::kChat, .id = "chatcmpl-1", .created = 5, .model = "m"}};
const AnswerForm kText{
    .head = {.kind = ApiKind::kCompletion, .id = "cmpl-1", .created = 5, .model = "m"}};
const Usage kUsage{
    .prompt_tokens = 10, .completion_tokens = 4, .cached_tokens = 3, .reasoning_tokens = 2};

// The events of a stream: {"event", "data"}; data that is not JSON is a string.
std::vector<json> events(const std::string& text) {
  std::vector<json> all;
  json event;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("event: ")) event["event"] = line.substr(7);
    if (line.starts_with("data: ")) {
      event["data"] = json::parse(line.substr(6), nullptr, false);
      if (event["data"].is_discarded()) event["data"] = line.substr(6);
    }
    if (line.empty()) all.push_back(std::exchange(event, json()));
  }
  return all;
}
std::vector<json> data(const std::string& text) {
  std::vector<json> all;
  for (json& event : events(text)) all.push_back(std::move(event["data"]));
  return all;
}
std::vector<std::string> names(const std::string& text) {
  std::vector<std::string> all;
  for (const json& event : events(text)) all.push_back(event["event"]);
  return all;
}

// A thought, a text, two calls and the end, as a Generation hands them out.
std::vector<ChoiceDelta> everything() {
  return {
      {.role = true},
      {.reasoning = "let me"},
      {.reasoning = " see"},
      {.content = "I will"},
      {.content = " look."},
      {.tool_calls = {{.index = 0, .id = "call_a", .name = "find"}}},
      {.tool_calls = {{.index = 0, .arguments = "{\"x\":"}, {.index = 0, .arguments = "1}"}}},
      {.tool_calls = {{.index = 1, .id = "call_b", .name = "stat", .arguments = "{}"}}},
      {.finish_reason = "tool_calls"},
  };
}
std::string stream(AnswerWriter& writer, const std::vector<ChoiceDelta>& deltas) {
  std::string text = writer.open(kUsage);
  for (const ChoiceDelta& delta : deltas) text += writer.delta(delta, kUsage);
  return text + writer.close(kUsage);
}
Choice joined(const std::vector<ChoiceDelta>& deltas) {
  Choice choice{.has_reasoning = true};
  for (const ChoiceDelta& delta : deltas) append(choice, delta);
  return choice;
}

TEST(ChatWriter, a_chat_has_openais_shape) {
  const Choice choice{
      .content = "yes", .reasoning = "hm", .has_reasoning = true, .finish_reason = "stop"};
  EXPECT_EQ(json::parse(make_chat_writer(kChat, tokenizer())->whole({choice}, kUsage)),
            json::parse(R"({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m",
    "choices": [{"index": 0, "logprobs": null, "finish_reason": "stop",
      "message": {"role": "assistant", "reasoning_content": "hm", "content": "yes"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14,
      "prompt_tokens_details": {"cached_tokens": 3},
      "completion_tokens_details": {"reasoning_tokens": 2},
      "prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 7}})"));
}

TEST(ChatWriter, chunks_have_openais_shape) {
  AnswerForm form = kChat;
  form.include_usage = true;
  const auto writer = make_chat_writer(form, tokenizer());
  const auto all = data(stream(
      *writer, {{.role = true}, {.content = "x"}, {.content = "y", .finish_reason = "length"}}));
  ASSERT_EQ(all.size(), 6u);
  EXPECT_EQ(all[0]["object"], "chat.completion.chunk");
  EXPECT_EQ(all[0]["choices"][0]["delta"], json::parse(R"({"role": "assistant", "content": ""})"));
  EXPECT_TRUE(all[0]["usage"].is_null());
  EXPECT_EQ(all[1]["choices"][0]["delta"], json::parse(R"({"content": "x"})"));
  EXPECT_TRUE(all[1]["choices"][0]["finish_reason"].is_null());
  EXPECT_EQ(all[2]["choices"][0]["delta"], json::parse(R"({"content": "y"})"));
  EXPECT_EQ(all[3]["choices"][0]["delta"], json::object());
  EXPECT_EQ(all[3]["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(all[4]["choices"], json::array());
  EXPECT_EQ(all[4]["usage"]["total_tokens"], 14);
  EXPECT_EQ(all[5], "[DONE]");
}

TEST(ChatWriter, usage_is_there_only_when_it_was_asked_for) {
  const auto plain = data(stream(*make_chat_writer(kChat, tokenizer()), {{.content = "x"}}));
  EXPECT_FALSE(plain[0].contains("usage"));
  AnswerForm form = kChat;
  form.include_usage = form.continuous_usage = true;
  const auto all = data(stream(*make_chat_writer(form, tokenizer()), {{.content = "x"}}));
  EXPECT_EQ(all[0]["usage"]["completion_tokens"], 4);
}

TEST(ChatWriter, a_call_is_named_once_and_its_arguments_come_in_pieces) {
  const auto writer = make_chat_writer(kChat, tokenizer());
  std::vector<json> calls;
  for (const json& chunk : data(stream(*writer, everything()))) {
    if (!chunk.is_object()) continue;
    for (const json& call : chunk["choices"][0]["delta"].value("tool_calls", json::array())) {
      calls.push_back(call);
    }
  }
  EXPECT_THAT(calls,
              ElementsAre(json::parse(R"({"index": 0, "id": "call_a", "type": "function",
                                          "function": {"name": "find", "arguments": ""}})"),
                          json::parse(R"({"index": 0, "function": {"arguments": "{\"x\":"}})"),
                          json::parse(R"({"index": 0, "function": {"arguments": "1}"}})"),
                          json::parse(R"({"index": 1, "id": "call_b", "type": "function",
                                          "function": {"name": "stat", "arguments": "{}"}})")));
  Choice choice = joined(everything());
  const json whole = json::parse(writer->whole({choice}, kUsage))["choices"][0];
  EXPECT_EQ(whole["finish_reason"], "tool_calls");
  EXPECT_EQ(whole["message"]["content"], "I will look.");
  EXPECT_EQ(whole["message"]["tool_calls"], json::parse(R"([
    {"id": "call_a", "type": "function", "function": {"name": "find", "arguments": "{\"x\":1}"}},
    {"id": "call_b", "type": "function", "function": {"name": "stat", "arguments": "{}"}}])"));
  choice.content.clear();
  EXPECT_TRUE(
      json::parse(writer->whole({choice}, kUsage))["choices"][0]["message"]["content"].is_null());
}

TEST(ChatWriter, the_thought_has_a_second_name_when_the_server_says_so) {
  AnswerForm form = kChat;
  form.reasoning_alias = true;
  const auto writer = make_chat_writer(form, tokenizer());
  const json delta = data(writer->delta({.reasoning = "hm"}, kUsage))[0]["choices"][0]["delta"];
  EXPECT_EQ(delta, json::parse(R"({"reasoning_content": "hm", "reasoning": "hm"})"));
  const json whole = json::parse(writer->whole({joined({{.reasoning = "hm"}})}, kUsage));
  EXPECT_EQ(whole["choices"][0]["message"]["reasoning"], "hm");
}

TEST(ChatWriter, log_probabilities_name_tokens_and_their_bytes) {
  const engine::TokenId a = id_of("a");
  // The first byte of a character of three.
  const engine::TokenId part = tokenizer().encode("\xEA\x99\xAE", text::SpecialTokens::kAllow)[0];
  ASSERT_EQ(tokenizer().piece(part), "\xEA") << "another tokenizer needs another character";
  const engine::PositionLogprobs position{
      .chosen = {a, -0.5F}, .top = {{a, -0.5F}, {part, -std::numeric_limits<float>::infinity()}}};
  AnswerForm form = kChat;
  form.logprobs = true;
  const auto writer = make_chat_writer(form, tokenizer());
  const json expected = json::parse(R"({"refusal": null, "content": [
    {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [
      {"token": "a", "logprob": -0.5, "bytes": [97]},
      {"token": "\\xea", "logprob": -9999.0, "bytes": [234]}]}]})");
  EXPECT_EQ(data(writer->delta({.content = "a", .logprobs = {position}},
                               kUsage))[0]["choices"][0]["logprobs"],
            expected);
  const Choice choice{.content = "a", .logprobs = {position}, .finish_reason = "stop"};
  EXPECT_EQ(json::parse(writer->whole({choice}, kUsage))["choices"][0]["logprobs"], expected);
  EXPECT_EQ(json::parse(writer->whole({Choice()}, kUsage))["choices"][0]["logprobs"]["content"],
            json::array());
}

TEST(ChatWriter, the_prompts_log_probabilities_come_with_the_first_chunk) {
  const engine::TokenId a = id_of("a");
  const engine::TokenId b = id_of("b");
  const ChoiceDelta first{.role = true,
                          .prompt_logprobs = {{.chosen = {a, -1}, .top = {{b, -0.5F}}}}};
  const json all = data(make_chat_writer(kChat, tokenizer())->delta(first, kUsage))[0];
  json expected = json::array({nullptr, json::object()});
  expected[1][std::to_string(a)] = {{"logprob", -1.0}, {"decoded_token", "a"}};
  expected[1][std::to_string(b)] = {{"logprob", -0.5}, {"decoded_token", "b"}, {"rank", 1}};
  EXPECT_EQ(all["prompt_logprobs"], expected);
}

TEST(CompletionWriter, log_probabilities_say_where_in_the_text_a_token_begins) {
  AnswerForm form = kText;
  form.logprobs = true;
  const auto writer = make_completion_writer(form, tokenizer());
  // Characters of several tokens count where they begin.
  std::vector<engine::PositionLogprobs> positions;
  const std::string text =
      "\xEA\x99\xAE"
      "ab";
  for (const engine::TokenId id : tokenizer().encode(text, text::SpecialTokens::kAllow)) {
    positions.push_back({.chosen = {id, -0.25F}, .top = {{id, -0.25F}}});
  }
  ASSERT_GE(positions.size(), 4u);
  const Choice choice{.content = text, .logprobs = positions, .finish_reason = "stop"};
  const json whole = json::parse(writer->whole({choice}, kUsage))["choices"][0]["logprobs"];
  EXPECT_EQ(whole["tokens"][0], "bytes:\\xea");
  EXPECT_EQ(whole["text_offset"][0], 0);
  EXPECT_EQ(whole["text_offset"][1], 1);
  EXPECT_EQ(whole["top_logprobs"][0]["bytes:\\xea"], -0.25);
  // In a stream offsets go on from chunk to chunk.
  std::vector<json> offsets;
  for (const engine::PositionLogprobs& position : positions) {
    const auto chunks = data(writer->delta({.logprobs = {position}}, kUsage));
    offsets.push_back(chunks[0]["choices"][0]["logprobs"]["text_offset"][0]);
  }
  EXPECT_EQ(json(offsets), whole["text_offset"]);
}

TEST(CompletionWriter, of_an_echoed_prompts_first_token_nothing_is_told) {
  AnswerForm form = kText;
  form.logprobs = true;
  const auto writer = make_completion_writer(form, tokenizer());
  const Choice choice{.content = "ab",
                      .logprobs = {{.chosen = {5, std::nanf("")}, .top = {}},
                                   {.chosen = {6, -0.5F}, .top = {{6, -0.5F}}}},
                      .finish_reason = "stop"};
  const json told = json::parse(writer->whole({choice}, kUsage))["choices"][0]["logprobs"];
  EXPECT_TRUE(told["token_logprobs"][0].is_null());
  EXPECT_TRUE(told["top_logprobs"][0].is_null());
  EXPECT_EQ(told["token_logprobs"][1], -0.5);
}

TEST(CompletionWriter, several_prompts_are_several_choices) {
  const auto writer = make_completion_writer(kText, tokenizer());
  const Choice one{.content = "a", .finish_reason = "stop"};
  const Choice two{.content = "b", .finish_reason = "length"};
  const json whole = json::parse(writer->whole({one, two}, kUsage));
  EXPECT_EQ(whole["object"], "text_completion");
  EXPECT_EQ(whole["choices"], json::parse(R"([
    {"index": 0, "text": "a", "logprobs": null, "finish_reason": "stop"},
    {"index": 1, "text": "b", "logprobs": null, "finish_reason": "length"}])"));
  const auto chunks =
      data(writer->delta({.index = 1, .content = "x", .finish_reason = "stop"}, {}));
  EXPECT_EQ(chunks[0]["choices"][0]["text"], "x");
  EXPECT_EQ(chunks[1]["choices"][0]["index"], 1);
  EXPECT_EQ(chunks[1]["choices"][0]["finish_reason"], "stop");
}

const AnswerHead kResponse{.id = "resp_7", .created = 5, .model = "m"};

TEST(ResponsesWriter, items_are_announced_grow_and_are_shown_whole) {
  const auto writer = make_responses_writer(kResponse, R"({"tools": [], "tool_choice": "auto"})");
  const std::string text = stream(*writer, everything());
  EXPECT_THAT(
      names(text),
      ElementsAre(
          "response.created", "response.in_progress",
          // the thought
          "response.output_item.added", "response.content_part.added",
          "response.reasoning_text.delta", "response.reasoning_text.delta",
          "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
          // the text
          "response.output_item.added", "response.content_part.added", "response.output_text.delta",
          "response.output_text.delta", "response.output_text.done", "response.content_part.done",
          "response.output_item.done",
          // the calls
          "response.output_item.added", "response.function_call_arguments.delta",
          "response.function_call_arguments.delta", "response.function_call_arguments.done",
          "response.output_item.done", "response.output_item.added",
          "response.function_call_arguments.delta", "response.function_call_arguments.done",
          "response.output_item.done", "response.completed"));
  const auto all = events(text);
  std::vector<json> items;
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i]["data"]["type"], all[i]["event"]);
    EXPECT_EQ(all[i]["data"]["sequence_number"], i);
    if (all[i]["event"] == "response.output_item.done") items.push_back(all[i]["data"]["item"]);
  }
  EXPECT_EQ(all.front()["data"]["response"]["status"], "in_progress");
  EXPECT_EQ(all.front()["data"]["response"]["output"], json::array());
  const json& last = all.back()["data"]["response"];
  EXPECT_EQ(last["status"], "completed");
  EXPECT_EQ(last["output"], json(items));
  EXPECT_EQ(last["tool_choice"], "auto");
  EXPECT_EQ(last["usage"]["input_tokens_details"]["cached_tokens"], 3);
  EXPECT_EQ(items[0]["content"][0]["text"], "let me see");
  EXPECT_EQ(items[1]["content"][0]["text"], "I will look.");
  EXPECT_EQ(items[2]["arguments"], R"({"x":1})");
  EXPECT_EQ(items[3]["call_id"], "call_b");
}

TEST(ResponsesWriter, a_whole_response_equals_the_last_event_of_a_stream) {
  const auto streamed = make_responses_writer(kResponse, "{}");
  const auto whole = make_responses_writer(kResponse, "{}");
  EXPECT_EQ(json::parse(whole->whole({joined(everything())}, kUsage)),
            data(stream(*streamed, everything())).back()["response"]);
}

TEST(ResponsesWriter, an_answer_that_was_cut_is_incomplete) {
  const auto writer = make_responses_writer(kResponse, "{}");
  const auto all = events(stream(*writer, {{.content = "one"}, {.finish_reason = "length"}}));
  EXPECT_EQ(all.back()["event"], "response.incomplete");
  const json& last = all.back()["data"]["response"];
  EXPECT_EQ(last["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(last["output"][0]["status"], "incomplete");
}

TEST(ResponsesWriter, an_empty_answer_has_an_empty_message) {
  const auto streamed = make_responses_writer(kResponse, "{}");
  const json last = data(stream(*streamed, {{.finish_reason = "stop"}})).back()["response"];
  EXPECT_EQ(last["output"][0]["content"][0]["text"], "");
  const Choice empty{.finish_reason = "stop"};
  EXPECT_EQ(json::parse(make_responses_writer(kResponse, "{}")->whole({empty}, kUsage)), last);
}

TEST(ResponsesWriter, a_failure_in_mid_stream_is_an_error_and_a_failed_response) {
  const auto writer = make_responses_writer(kResponse, "{}");
  writer->open(kUsage);
  writer->delta({.content = "one"}, kUsage);
  const auto all = events(writer->error({.status = 500, .message = "the device broke"}));
  EXPECT_EQ(all[0]["event"], "error");
  EXPECT_EQ(all[0]["data"]["message"], "the device broke");
  EXPECT_EQ(all[1]["data"]["response"]["status"], "failed");
  EXPECT_EQ(all[1]["data"]["response"]["error"]["code"], "server_error");
}

const AnswerHead kMessage{.id = "msg_7", .created = 5, .model = "m"};

TEST(MessagesWriter, blocks_begin_grow_and_stop_one_after_the_other) {
  const auto writer = make_messages_writer(kMessage, "req-1");
  const auto all = events(stream(*writer, everything()));
  json open;  // index -> the block, put together as Anthropic's client does it
  json done = json::array();
  for (const json& event : all) {
    EXPECT_EQ(event["event"], event["data"]["type"]);
    const json& said = event["data"];
    if (said["type"] == "content_block_start") {
      EXPECT_TRUE(open.is_null());
      EXPECT_EQ(said["index"], done.size());
      open = said["content_block"];
      open["json"] = "";
    } else if (said["type"] == "content_block_delta") {
      const json& delta = said["delta"];
      for (const char* part : {"text", "thinking"}) {
        if (delta.contains(part))
          open[part] = open[part].get<std::string>() + delta[part].get<std::string>();
      }
      if (delta.contains("partial_json")) {
        open["json"] = open["json"].get<std::string>() + delta["partial_json"].get<std::string>();
      }
    } else if (said["type"] == "content_block_stop") {
      if (open["type"] == "tool_use") open["input"] = json::parse(open["json"].get<std::string>());
      open.erase("json");
      done.push_back(std::exchange(open, json()));
    }
  }
  EXPECT_EQ(all.front()["data"]["message"]["usage"]["cache_read_input_tokens"], 3);
  EXPECT_EQ(all[all.size() - 2]["data"]["delta"]["stop_reason"], "tool_use");
  EXPECT_EQ(all[all.size() - 2]["data"]["usage"]["output_tokens"], 4);
  EXPECT_EQ(all.back()["event"], "message_stop");
  const json whole =
      json::parse(make_messages_writer(kMessage, "req-1")->whole({joined(everything())}, kUsage));
  EXPECT_EQ(whole["content"], done);
  EXPECT_EQ(whole["content"][0]["thinking"], "let me see");
  EXPECT_EQ(whole["content"][2], json::parse(R"({"type": "tool_use", "id": "call_a",
                                                 "name": "find", "input": {"x": 1}})"));
  EXPECT_EQ(whole["stop_reason"], "tool_use");
  EXPECT_EQ(whole["usage"]["input_tokens"], 7);
}

TEST(MessagesWriter, says_why_it_stopped) {
  const auto reason = [](const Choice& choice) {
    const json whole = json::parse(make_messages_writer(kMessage, "r")->whole({choice}, kUsage));
    return whole["stop_reason"].get<std::string>() + " " + whole["stop_sequence"].dump();
  };
  EXPECT_EQ(reason({.finish_reason = "stop"}), "end_turn null");
  EXPECT_EQ(reason({.finish_reason = "length"}), "max_tokens null");
  EXPECT_EQ(reason({.finish_reason = "stop", .stop_string = "END"}), "stop_sequence \"END\"");
}

TEST(MessagesWriter, arguments_that_are_no_object_stay_readable) {
  Choice choice{.finish_reason = "tool_calls"};
  choice.tool_calls = {{.id = "a", .name = "f", .arguments = "{\"x\":"}};
  const json whole = json::parse(make_messages_writer(kMessage, "r")->whole({choice}, kUsage));
  EXPECT_EQ(whole["content"][0]["input"]["arguments"], "{\"x\":");
}

TEST(MessagesWriter, errors_and_signs_of_life_have_anthropics_shape) {
  const auto writer = make_messages_writer(kMessage, "req-1");
  EXPECT_EQ(writer->keep_alive(), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
  const ApiError full{.status = 429, .message = "full", .retry_after_s = 2};
  const http::Response refusal = writer->refusal(full);
  EXPECT_EQ(refusal.status, 429);
  EXPECT_EQ(refusal.headers.at("Retry-After"), "2");
  const json expected = json::parse(R"({"type": "error", "request_id": "req-1",
                                        "error": {"type": "rate_limit_error", "message": "full"}})");
  EXPECT_EQ(json::parse(refusal.body), expected);
  EXPECT_EQ(events(writer->error(full))[0]["event"], "error");
  EXPECT_EQ(events(writer->error(full))[0]["data"], expected);
}

TEST(InferenceWriter, a_text_and_how_it_ended) {
  const AnswerHead head{.id = "inf-1", .model = "m"};
  const Choice choice{.content = "yes", .finish_reason = "stop"};
  EXPECT_EQ(json::parse(make_inference_writer(head)->whole({choice}, kUsage)), json::parse(R"({
    "id": "inf-1", "model": "m", "text": "yes", "finish_reason": "stop",
    "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}})"));
  const auto writer = make_inference_writer(head);
  EXPECT_THAT(data(stream(*writer, {{.role = true}, {.content = "y"}, {.finish_reason = "stop"}})),
              ElementsAre(json::parse(R"({"text": "y"})"), json::parse(R"({"finish_reason": "stop",
                  "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}})"),
                          "[DONE]"));
}

TEST(AnswerWriter, an_answer_that_is_no_utf8_is_sent_as_utf8) {
  const Choice choice{.content = "a\xFF", .finish_reason = "stop"};
  EXPECT_EQ(json::parse(make_chat_writer(kChat, tokenizer())
                            ->whole({choice}, kUsage))["choices"][0]["message"]["content"],
            "a\xEF\xBF\xBD");
}

}  // namespace
}  // namespace dsm::server
