// Bodies of the Responses, Messages and simple APIs as values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "worker/server/inference_request.h"
#include "worker/server/messages_request.h"
#include "worker/server/responses_request.h"

namespace dsm::server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using text::Role;

// "role|content|reasoning|calls|answered call" of each message.
std::vector<std::string> lines(const std::vector<text::ChatMessage>& messages) {
  std::vector<std::string> all;
  for (const text::ChatMessage& message : messages) {
    constexpr const char* kRoles[] = {"system", "user", "assistant", "tool"};
    std::string line = kRoles[static_cast<int>(message.role)];
    line += "|" + message.content + "|" + message.reasoning + "|";
    for (const text::ToolCall& call : message.tool_calls) {
      line += call.id + ":" + call.name + call.arguments;
    }
    all.push_back(line + "|" + message.tool_call_id);
  }
  return all;
}
template <typename T>
std::string refusal(const Parsed<T>& parsed) {
  if (parsed) return "accepted";
  EXPECT_EQ(parsed.error().status, 400);
  return parsed.error().param + ": " + parsed.error().message;
}

Parsed<ResponsesRequest> responses(const std::string& fields) {
  return parse_responses(R"({"model": "m", )" + fields + "}", {});
}

TEST(ResponsesRequest, a_text_is_a_question) {
  const auto request =
      responses(R"("input": "hi", "instructions": "be brief", "max_output_tokens": 7,
                   "temperature": 0.5, "stream": true, "reasoning": {"effort": "high"})");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_THAT(lines(request->chat.messages), ElementsAre("system|be brief|||", "user|hi|||"));
  EXPECT_EQ(request->chat.options.max_tokens, 7);
  EXPECT_FLOAT_EQ(request->chat.options.sampling.temperature, 0.5F);
  EXPECT_TRUE(request->chat.options.stream);
  EXPECT_TRUE(request->chat.template_options.thinking);
  const json echo = json::parse(request->echo);
  EXPECT_EQ(echo["instructions"], "be brief");
  EXPECT_EQ(echo["reasoning"]["effort"], "high");
  EXPECT_EQ(echo["tools"], json::array());
}

TEST(ResponsesRequest, items_of_one_turn_are_one_message) {
  const auto request = responses(R"("input": [
    {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call", "call_id": "2", "name": "g", "arguments": "[]"},
    {"type": "function_call_output", "call_id": "1", "output": "x"},
    {"type": "function_call_output", "call_id": "2",
     "output": [{"type": "input_text", "text": "y"}]}])");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_THAT(lines(request->chat.messages),
              ElementsAre("user|a|||", "assistant|b|hm|1:f{}2:g[]|", "tool|x|||1", "tool|y|||2"));
}

TEST(ResponsesRequest, what_needs_a_memory_or_eyes_is_refused_by_name) {
  EXPECT_THAT(refusal(responses(R"("input": "a", "store": true)")), HasSubstr("store: "));
  EXPECT_THAT(refusal(responses(R"("input": "a", "previous_response_id": "resp_1")")),
              HasSubstr("previous_response_id: "));
  EXPECT_THAT(refusal(responses(R"("input": "a", "background": true)")), HasSubstr("background: "));
  EXPECT_EQ(refusal(responses(R"("input": "a", "store": false)")), "accepted");
  EXPECT_THAT(refusal(responses(R"("input": "a", "tools": [{"type": "web_search"}])")),
              HasSubstr("tools[0].type: "));
  EXPECT_THAT(refusal(responses(R"("input": [{"role": "user", "content": [
                                     {"type": "input_image", "image_url": "x"}]}])")),
              HasSubstr("input[0].content[0]: "));
  EXPECT_THAT(refusal(responses(R"("input": [{"type": "item_reference", "id": "x"}])")),
              HasSubstr("input[0].type: "));
  EXPECT_THAT(refusal(responses(R"("input": [
                {"type": "function_call_output", "call_id": "9", "output": ""}])")),
              HasSubstr("input[0].call_id: "));
}

TEST(ResponsesRequest, errors_of_what_chats_have_too_name_our_fields) {
  EXPECT_THAT(refusal(responses(R"("input": "a", "max_output_tokens": 0)")),
              HasSubstr("max_output_tokens: 'max_output_tokens' must be"));
  EXPECT_THAT(refusal(responses(R"("input": "a", "reasoning": {"effort": "huge"})")),
              HasSubstr("reasoning.effort: "));
  EXPECT_THAT(refusal(responses(R"("input": "a", "temperature": 9)")), HasSubstr("temperature: "));
}

Parsed<ChatRequest> messages(const std::string& fields) {
  return parse_messages(R"({"model": "m", "max_tokens": 5, )" + fields + "}", {}, true);
}

TEST(MessagesRequest, blocks_become_messages) {
  const auto request = messages(R"("system": [{"type": "text", "text": "s",
                                               "cache_control": {"type": "ephemeral"}}],
    "stop_sequences": ["END"], "thinking": {"type": "enabled", "budget_tokens": 1024},
    "messages": [
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "c"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {"z": 1, "a": 2}}]},
      {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x"}]},
        {"type": "text", "text": "and?"}]}])");
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_THAT(lines(request->messages),
              ElementsAre("system|s|||", "user|ab|||", R"(assistant|c|hm|1:f{"z":1,"a":2}|)",
                          "tool|x|||1", "user|and?|||"));
  EXPECT_THAT(request->options.stop, ElementsAre("END"));
  EXPECT_TRUE(request->template_options.thinking);
  EXPECT_EQ(request->options.max_tokens, 5);
  EXPECT_TRUE(request->template_options.add_generation_prompt);
}

TEST(MessagesRequest, an_answer_that_was_begun_is_gone_on_with) {
  const auto request = messages(R"("messages": [{"role": "user", "content": "a"},
                                                {"role": "assistant", "content": "b"}])");
  ASSERT_TRUE(request);
  EXPECT_TRUE(request->template_options.continue_final_message);
  EXPECT_FALSE(request->template_options.add_generation_prompt);
}

TEST(MessagesRequest, what_is_wrong_is_named) {
  constexpr const char* kHi = R"("messages": [{"role": "user", "content": "hi"}], )";
  const auto with = [&](const std::string& more) { return refusal(messages(kHi + more)); };
  EXPECT_EQ(with(R"("metadata": {"user_id": "x"})"), "accepted");
  EXPECT_THAT(with(R"("stop_sequences": 1)"), HasSubstr("stop_sequences: 'stop_sequences' "));
  EXPECT_THAT(with(R"("thinking": {"type": "maybe"})"), HasSubstr("thinking.type: "));
  EXPECT_THAT(with(R"("thinking": {"type": "enabled", "budget_tokens": 0})"),
              HasSubstr("thinking.budget_tokens: "));
  EXPECT_THAT(with(R"("tools": [{"type": "bash_20250124", "name": "bash"}])"),
              HasSubstr("tools[0].type: "));
  EXPECT_THAT(with(R"("tool_choice": {"type": "tool"})"), HasSubstr("tool_choice.type: "));
  EXPECT_THAT(with(R"("mcp_servers": [{}])"), HasSubstr("mcp_servers: "));
  EXPECT_THAT(refusal(messages(R"("messages": [{"role": "system", "content": "x"}])")),
              HasSubstr("messages[0].role: "));
  EXPECT_THAT(
      refusal(messages(R"("messages": [{"role": "user", "content": [{"type": "image"}]}])")),
      HasSubstr("messages[0].content[0].type: "));
  const std::string body = R"({"model": "m", "messages": [{"role": "user", "content": "hi"}]})";
  EXPECT_THAT(refusal(parse_messages(body, {}, true)), HasSubstr("max_tokens: "));
  EXPECT_EQ(refusal(parse_messages(body, {}, false)), "accepted");
}

TEST(InferenceRequest, a_prompt_is_enough) {
  const auto request = parse_inference(R"({"prompt": "hi", "max_tokens": 3})", "served", {});
  ASSERT_TRUE(request);
  EXPECT_EQ(request->model, "served");
  EXPECT_THAT(lines(request->messages), ElementsAre("user|hi|||"));
  EXPECT_THAT(refusal(parse_inference("{}", "m", {})), HasSubstr("prompt: "));
  EXPECT_THAT(refusal(parse_inference(R"({"prompt": "a", "max_tokens": -1})", "m", {})),
              HasSubstr("max_tokens: "));
}

TEST(TokenizeRequest, reads_a_text_or_a_chat) {
  const auto text = parse_tokenize(R"({"prompt": "a", "add_special_tokens": false})", "m", {});
  ASSERT_TRUE(text);
  EXPECT_EQ(std::get<std::string>(text->prompt), "a");
  EXPECT_FALSE(text->add_special_tokens);
  const auto chat = parse_tokenize(R"({"messages": [{"role": "user", "content": "hi"}]})", "m", {});
  ASSERT_TRUE(chat) << chat.error().message;
  EXPECT_EQ(std::get<ChatRequest>(chat->prompt).messages.size(), 1u);
  EXPECT_THAT(refusal(parse_tokenize("{}", "m", {})), HasSubstr("prompt: "));
}

TEST(DetokenizeRequest, ids_are_the_models) {
  EXPECT_THAT(parse_detokenize(R"({"tokens": [0, 9]})", "m", 10)->tokens, ElementsAre(0, 9));
  for (const char* wrong :
       {"[10]", "[-1]", "[1.5]", "[\"a\"]", "3", "null", "[18446744073709551615]"}) {
    EXPECT_THAT(refusal(parse_detokenize(R"({"tokens": )" + std::string(wrong) + "}", "m", 10)),
                HasSubstr("tokens: "))
        << wrong;
  }
}

TEST(Bodies, are_bounded_before_they_are_built) {
  std::string deep = R"({"input": )";
  for (int i = 0; i < 100000; ++i) deep += "[";
  EXPECT_THAT(refusal(parse_responses(deep, {})), HasSubstr("nested deeper"));
  std::string wide = R"({"model": "m")";
  for (int i = 0; i < 2000; ++i) wide += ",\"f" + std::to_string(i) + "\": 1";
  EXPECT_THAT(refusal(parse_responses(wide + "}", {})), HasSubstr("more than 1024 fields"));
  EXPECT_THAT(refusal(parse_responses("[]", {})), HasSubstr("must be a JSON object"));
  EXPECT_THAT(refusal(parse_messages("{\"secret\": ", {}, true)),
              ::testing::AllOf(HasSubstr("not valid JSON"), ::testing::Not(HasSubstr("secret"))));
}

}  // namespace
}  // namespace dsm::server
