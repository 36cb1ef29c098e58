// What a chat says beside sampling: its body, messages, thinking and tools.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/server/api_request.h"
#include "worker/server/request_testing.h"

namespace dsm::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A conversation of these messages, with these fields added.
std::string conversation(const std::string& messages, const std::string& fields = "") {
  return R"({"model": "m", "messages": [)" + messages + "]" +
         (fields.empty() ? "" : ", " + fields) + "}";
}
const std::string kAsk = R"({"role": "user", "content": "hi"})";
const std::string kCall =
    R"({"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
        "function": {"name": "f", "arguments": "{\"b\": 1}"}}]})";
const std::string kTool =
    R"({"type": "function", "function": {"name": "f", "description": "does f",
        "parameters": {"z": 1, "a": 2}, "strict": true}})";

TEST(ChatRequest, refuses_bodies_that_are_not_what_they_must_be) {
  EXPECT_THAT(body_refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(body_refusal("[]"), HasSubstr("must be a JSON object"));
  EXPECT_THAT(body_refusal("{\"model\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(body_refusal("\xEF\xBB\xBF{}"), HasSubstr("byte order mark"));
  EXPECT_THAT(body_refusal(std::string(100'000, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(body_refusal("{}"), StartsWith("model: "));
  EXPECT_THAT(body_refusal(R"({"model": "m"})"), StartsWith("messages: "));
  EXPECT_THAT(body_refusal(R"({"model": 5, "messages": []})"), StartsWith("model: "));
}

TEST(ChatRequest, an_object_with_very_many_fields_is_refused) {
  std::string wide = R"({"0": 0)";
  for (int i = 1; i < 1024; ++i) wide += ", \"" + std::to_string(i) + "\": {}";
  EXPECT_EQ(refusal(R"("metadata": )" + wide + "}"), "accepted");
  EXPECT_THAT(refusal(R"("metadata": )" + wide + R"(, "x": 1})"), HasSubstr("more than 1024"));
}

TEST(ChatRequest, a_refusal_of_broken_json_does_not_quote_the_body) {
  EXPECT_THAT(body_refusal(R"({"secret words" "x"})"), Not(HasSubstr("secret")));
}

TEST(ChatRequest, deep_nesting_inside_a_string_is_only_text) {
  EXPECT_EQ(refusal(R"("user": ")" + std::string(1000, '[') + R"(\"")"), "accepted");
}

TEST(ChatRequest, refuses_messages_that_are_not_what_they_must_be) {
  for (const auto& [messages, param] : std::vector<std::pair<std::string, std::string>>{
           {"", "messages"},
           {"5", "messages[0]"},
           {R"({"content": "x"})", "messages[0].role"},
           {R"({"role": "wizard", "content": "x"})", "messages[0].role"},
           {R"({"role": "user"})", "messages[0].content"},
           {R"({"role": "user", "content": 5})", "messages[0].content"},
           {R"({"role": "user", "content": [{"type": "image_url", "image_url": {}}]})",
            "messages[0].content"},
           {R"({"role": "user", "content": [{"type": "text"}]})", "messages[0].content"},
           {R"({"role": "user", "content": "x", "tool_calls": [{}]})", "messages[0].tool_calls"},
           {R"({"role": "assistant", "content": "", "function_call": {"name": "f"}})",
            "messages[0].function_call"},
           {R"({"role": "assistant", "content": "x", "reasoning_content": 5})",
            "messages[0].reasoning_content"},
           {R"({"role": "assistant", "tool_calls": {}})", "messages[0].tool_calls"},
           {R"({"role": "assistant", "tool_calls": [5]})", "messages[0].tool_calls[0]"},
           {R"({"role": "assistant", "tool_calls": [{"id": "x"}]})",
            "messages[0].tool_calls[0].function"},
           {R"({"role": "assistant", "tool_calls": [{"type": "custom", "function": {}}]})",
            "messages[0].tool_calls[0].type"},
           {R"({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]})",
            "messages[0].tool_calls[0].function.name"},
           {R"({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]})",
            "messages[0].tool_calls[0].function.arguments"},
           {R"({"role": "tool", "content": "x", "tool_call_id": "a"})", "messages[0].role"},
           {kAsk + "," + kCall + R"(, {"role": "tool", "content": "x", "tool_call_id": "call_2"})",
            "messages[2].tool_call_id"},
           {kCall + R"(, {"role": "tool", "tool_call_id": "call_1"})", "messages[1].content"},
           {kCall + "," + kAsk + R"(, {"role": "tool", "content": "x", "tool_call_id": "call_1"})",
            "messages[2].role"},
           {R"({"role": "user", "content": "x", "prefix": true})", "messages[0].prefix"},
           {R"({"role": "assistant", "content": "x", "prefix": true},)" + kAsk, "messages"}}) {
    EXPECT_THAT(body_refusal(conversation(messages)), StartsWith(param + ": ")) << messages;
  }
}

TEST(ChatRequest, joins_the_text_parts_of_a_message_and_knows_all_roles) {
  const auto request = parse_chat(conversation(R"({"role": "developer", "content": "be brief"},
          {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
          {"role": "assistant", "content": null, "reasoning_content": "hm"},
          {"role": "assistant", "content": "c", "tool_calls": null, "reasoning": "ho"})"),
                                  {});
  ASSERT_TRUE(request.has_value()) << request.error().message;
  ASSERT_EQ(request->messages.size(), 4u);
  EXPECT_EQ(request->messages[0].role, text::Role::kSystem);
  EXPECT_EQ(request->messages[1].content, "ab");
  EXPECT_EQ(request->messages[2].content, "");
  EXPECT_EQ(request->messages[2].reasoning, "hm");
  EXPECT_EQ(request->messages[3].content, "c");
  EXPECT_EQ(request->messages[3].reasoning, "ho");
}

TEST(ChatRequest, reads_calls_and_their_results) {
  const auto request = parse_chat(
      conversation(kAsk + R"(, {"role": "assistant", "content": "let me look", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}},
        {"id": "b", "function": {"name": "g", "arguments": {"z": 1, "a": 2}}},
        {"id": "c", "function": {"name": "h"}}]},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "two"}]},
        {"role": "tool", "tool_call_id": "a", "content": "one", "name": "f"})"),
      {});
  ASSERT_TRUE(request.has_value()) << request.error().message;
  const auto& calls = request->messages[1].tool_calls;
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_EQ(calls[0].id, "a");
  EXPECT_EQ(calls[0].name, "f");
  EXPECT_EQ(calls[0].arguments, R"({"x": 1})");
  EXPECT_EQ(calls[1].arguments, R"({"z": 1, "a": 2})") << "in the client's order";
  EXPECT_EQ(calls[2].arguments, "{}");
  EXPECT_EQ(request->messages[2].role, text::Role::kTool);
  EXPECT_EQ(request->messages[2].tool_call_id, "b");
  EXPECT_EQ(request->messages[2].content, "two");
  EXPECT_EQ(request->messages[3].tool_call_id, "a");
}

TEST(ChatRequest, the_last_message_can_be_gone_on_with) {
  const std::string begun = kAsk + R"(, {"role": "assistant", "content": "The")";
  for (const std::string& body :
       {conversation(begun + "}", R"("continue_final_message": true)"),
        conversation(begun + "}",
                     R"("continue_final_message": true, "add_generation_prompt": false)"),
        conversation(begun + R"(, "prefix": true})")}) {
    const auto request = parse_chat(body, {});
    ASSERT_TRUE(request.has_value()) << request.error().message;
    EXPECT_TRUE(request->template_options.continue_final_message) << body;
    EXPECT_FALSE(request->template_options.add_generation_prompt) << body;
  }
  const auto plain = parse_chat(conversation(begun + R"(, "prefix": false})"), {});
  ASSERT_TRUE(plain.has_value());
  EXPECT_FALSE(plain->template_options.continue_final_message);
  EXPECT_TRUE(plain->template_options.add_generation_prompt);
  EXPECT_THAT(body_refusal(conversation(
                  begun + "}", R"("continue_final_message": true, "add_generation_prompt": true)")),
              StartsWith("add_generation_prompt: "));
  EXPECT_THAT(refusal(R"("continue_final_message": true)"), StartsWith("continue_final_message: "));
  EXPECT_THAT(body_refusal(conversation(kCall, R"("continue_final_message": true)")),
              StartsWith("continue_final_message: "));
}

TEST(ChatRequest, thinking_can_be_asked_for_in_several_ways) {
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

TEST(ChatRequest, reads_tools_with_their_schemas_as_they_were_written) {
  const auto request = chat(R"("tools": [)" + kTool + R"(, {"type": "function",
                               "function": {"name": "g.h-1", "parameters": null}}],
                               "parallel_tool_calls": false)");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  const auto& tools = request->template_options.tools;
  ASSERT_EQ(tools.size(), 2u);
  EXPECT_EQ(tools[0].name, "f");
  EXPECT_EQ(tools[0].description, "does f");
  EXPECT_EQ(tools[0].parameters, R"({"z": 1, "a": 2})");
  EXPECT_TRUE(tools[0].strict);
  EXPECT_EQ(tools[1].name, "g.h-1");
  EXPECT_EQ(tools[1].parameters, "");
  EXPECT_FALSE(tools[1].strict);
  EXPECT_EQ(request->tool_choice.kind, ToolChoice::Kind::kAuto);
  EXPECT_FALSE(request->parallel_tool_calls);
}

TEST(ChatRequest, the_choice_of_tools_is_one_of_four) {
  using Kind = ToolChoice::Kind;
  const auto choice = [](const std::string& value) {
    const auto request = chat(R"("tools": [)" + kTool + R"(], "tool_choice": )" + value);
    EXPECT_TRUE(request.has_value()) << request.error().message;
    return request ? *request : ChatRequest();
  };
  EXPECT_EQ(choice("null").tool_choice.kind, Kind::kAuto);
  EXPECT_EQ(choice(R"("auto")").tool_choice.kind, Kind::kAuto);
  EXPECT_EQ(choice(R"("required")").tool_choice.kind, Kind::kRequired);
  const auto named = choice(R"({"type": "function", "function": {"name": "f"}})");
  EXPECT_EQ(named.tool_choice.kind, Kind::kNamed);
  EXPECT_EQ(named.tool_choice.name, "f");
  EXPECT_EQ(named.template_options.tools.size(), 1u);
  const auto none = choice(R"("none")");
  EXPECT_EQ(none.tool_choice.kind, Kind::kNone);
  EXPECT_TRUE(none.template_options.tools.empty()) << "the model is not told of them";
}

TEST(ChatRequest, refuses_tools_that_are_not_what_they_must_be) {
  const auto tool = [](const std::string& function) {
    return R"("tools": [{"type": "function", "function": )" + function + "}]";
  };
  const std::string tools = R"("tools": [)" + kTool + "]";
  const std::string text(kMaxToolBytes / 8, 'x');
  std::string large = R"("tools": [)";
  for (int i = 0; i < 9; ++i) {
    large += (i == 0 ? "" : ", ") +
             (R"({"type": "function", "function": {"name": "f)" + std::to_string(i)) +
             R"(", "parameters": {"x": ")" + text + R"("}}})";
  }
  large += "]";
  for (const auto& [fields, param] : std::vector<std::pair<std::string, std::string>>{
           {R"("tools": {})", "tools"},
           {R"("tools": [5])", "tools[0]"},
           {R"("tools": [{"type": "web_search"}])", "tools[0].type"},
           {R"("tools": [{"type": "function"}])", "tools[0].function"},
           {tool("{}"), "tools[0].function.name"},
           {tool(R"({"name": "a b"})"), "tools[0].function.name"},
           {tool("{\"name\": \"" + std::string(129, 'a') + "\"}"), "tools[0].function.name"},
           {tool(R"({"name": "f", "description": 5})"), "tools[0].function.description"},
           {tool(R"({"name": "f", "parameters": []})"), "tools[0].function.parameters"},
           {tool(R"({"name": "f", "strict": "yes"})"), "tools[0].function.strict"},
           {R"("tools": [)" + kTool + "," + kTool + "]", "tools"},
           {large, "tools"},
           {R"("tool_choice": "required")", "tool_choice"},
           {R"("tool_choice": "sometimes")", "tool_choice"},
           {tools + R"(, "tool_choice": 5)", "tool_choice"},
           {tools + R"(, "tool_choice": {"type": "function"})", "tool_choice"},
           {tools + R"(, "tool_choice": {"type": "function", "function": {"name": "g"}})",
            "tool_choice"},
           {tools + R"(, "parallel_tool_calls": 1)", "parallel_tool_calls"},
           {tools + R"(, "response_format": {"type": "json_object"})", "response_format"},
           {tools + R"(, "guided_regex": "x")", "guided_regex"},
           {tools + R"(, "tool_choice": "required", "ignore_eos": true)", "ignore_eos"},
           {tools + R"(, "tool_choice": "required", "min_tokens": 3)", "min_tokens"},
           {tool(R"({"name": "f", "strict": true})") + R"(, "ignore_eos": true)", "ignore_eos"},
           {tool(R"({"name": "f", "strict": true})") + R"(, "min_tokens": 3)", "min_tokens"}}) {
    EXPECT_THAT(refusal(fields), StartsWith(param + ": ")) << fields.substr(0, 200);
  }
  EXPECT_EQ(
      refusal(tools + R"(, "tool_choice": "none", "response_format": {"type": "json_object"})"),
      "accepted");
}

}  // namespace
}  // namespace dsm::server
