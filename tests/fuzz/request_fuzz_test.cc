// Request bodies from anywhere: parsed into values within bounds, or refused with 400 and a
// sentence.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/fuzz/mutate.h"
#include "worker/server/api_request.h"
#include "worker/server/inference_request.h"
#include "worker/server/json_fields.h"
#include "worker/server/json_slice.h"
#include "worker/server/messages_request.h"
#include "worker/server/responses_request.h"

namespace dsm::server {
namespace {

using fuzz::mutate;
using fuzz::Random;

void expect_in_bounds(const GenerationOptions& options) {
  EXPECT_TRUE(engine::validate(options.sampling).has_value());
  EXPECT_LE(options.stop.size(), kMaxStops);
  if (options.max_tokens) {
    EXPECT_GT(*options.max_tokens, 0);
    EXPECT_LE(options.min_tokens, *options.max_tokens);
  }
  EXPECT_GE(options.min_tokens, 0);
  EXPECT_TRUE(options.n >= 1 && options.n <= kMaxN);
  const engine::SamplingParams& sampling = options.sampling;
  EXPECT_TRUE(std::abs(sampling.presence_penalty) <= 2 &&
              std::abs(sampling.frequency_penalty) <= 2);
  EXPECT_TRUE(sampling.repetition_penalty > 0 && sampling.repetition_penalty <= 2);
  for (const engine::LogitBias& bias : sampling.logit_bias) {
    EXPECT_TRUE(bias.token >= 0 && std::abs(bias.bias) <= 100);
  }
  for (const int logprobs : {sampling.logprobs, options.prompt_logprobs}) {
    EXPECT_TRUE(logprobs >= -1 && logprobs <= engine::kMaxLogprobs);
  }
  if (options.max_time) {
    EXPECT_TRUE(*options.max_time >= Millis(1) && *options.max_time <= Millis(kMaxTimeMs));
  }
  if (options.format) {
    EXPECT_FALSE(options.format->param.empty());
    EXPECT_LE(options.format->grammar.text.size(), kMaxGrammarBytes);
    EXPECT_LE(options.format->grammar.choices.size(), kMaxGrammarChoices);
  }
}

// What goes to the model and to the grammar as text is still JSON.
void expect_object(const std::string& text) {
  EXPECT_TRUE(nlohmann::json::parse(text, nullptr, false).is_object()) << text;
}

void expect_in_bounds(const ChatRequest& request) {
  EXPECT_FALSE(request.messages.empty());
  expect_in_bounds(request.options);
  const auto& tools = request.template_options.tools;
  EXPECT_LE(tools.size(), kMaxTools);
  for (const text::ToolDefinition& tool : tools) {
    EXPECT_FALSE(tool.name.empty());
    if (!tool.parameters.empty()) expect_object(tool.parameters);
  }
  using Kind = ToolChoice::Kind;
  EXPECT_EQ(tools.empty(), request.tool_choice.kind == Kind::kNone);
  EXPECT_FALSE(!tools.empty() && request.options.format);
  std::vector<std::string> ids;
  for (const text::ChatMessage& message : request.messages) {
    for (const text::ToolCall& call : message.tool_calls) {
      EXPECT_EQ(message.role, text::Role::kAssistant);
      EXPECT_FALSE(call.name.empty());
      ids.push_back(call.id);
    }
    if (message.role == text::Role::kTool) {
      EXPECT_NE(std::ranges::find(ids, message.tool_call_id), ids.end());
    }
  }
  if (request.template_options.continue_final_message) {
    EXPECT_EQ(request.messages.back().role, text::Role::kAssistant);
    EXPECT_FALSE(request.template_options.add_generation_prompt);
  }
}

void expect_refusal(const ApiError& error) {
  EXPECT_EQ(error.status, 400);
  EXPECT_FALSE(error.message.empty());
}

TEST(RequestFuzz, AChatRequestIsRefusedOrWithinBounds) {
  const std::string good =
      R"({"model":"deepseek-tiny","messages":[{"role":"system","content":"x"},{"role":"user","content":[{"type":"text","text":"y"}]}],)"
      R"("max_tokens":8,"temperature":0.7,"top_p":0.9,"top_k":4,"min_p":0.1,"seed":7,"stop":["\n","END"],"stream":true,)"
      R"("stream_options":{"include_usage":true},"chat_template_kwargs":{"thinking":true},"n":2,"best_of":2,)"
      R"("presence_penalty":-1,"frequency_penalty":0.5,"repetition_penalty":1.1,"logit_bias":{"5":-100,"7":3.5},)"
      R"("logprobs":true,"top_logprobs":5,"priority":-3,"max_time_ms":2500,)"
      R"("response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"z":{},"a":[1]}}}})";
  auto parsed = parse_chat(good, {});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  Random random(1);
  int accepted = 0;
  for (int i = 0; i < 10000; ++i) {
    Parsed<ChatRequest> request = parse_chat(mutate(good, random), {});
    if (!request) {
      expect_refusal(request.error());
      continue;
    }
    ++accepted;
    expect_in_bounds(*request);
    if (request->options.format &&
        request->options.format->grammar.kind == grammar::Kind::kJsonSchema) {
      expect_object(request->options.format->grammar.text);
    }
  }
  EXPECT_GT(accepted, 100);
}

TEST(RequestFuzz, AChatWithToolsIsRefusedOrWithinBounds) {
  const std::string good =
      R"({"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"reasoning_content":"hm",)"
      R"("tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},)"
      R"({"id":"b","function":{"name":"g","arguments":{"y":[2]}}}]},{"role":"tool","tool_call_id":"a","content":"one"},)"
      R"({"role":"tool","tool_call_id":"b","content":[{"type":"text","text":"two"}]},{"role":"assistant","content":"so","prefix":true}],)"
      R"("tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","a":{}},"strict":true}},)"
      R"({"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"function","function":{"name":"g"}},)"
      R"("parallel_tool_calls":false,"max_tokens":8})";
  auto parsed = parse_chat(good, {});
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  Random random(4);
  int accepted = 0;
  for (int i = 0; i < 10000; ++i) {
    Parsed<ChatRequest> request = parse_chat(mutate(good, random), {});
    if (!request) {
      expect_refusal(request.error());
      continue;
    }
    ++accepted;
    expect_in_bounds(*request);
  }
  EXPECT_GT(accepted, 100);
}

TEST(RequestFuzz, ACompletionRequestIsRefusedOrWithinBounds) {
  const std::string good =
      R"({"model":"m","prompt":[[1,2,3],[4]],"max_tokens":8,"stop":"x","stop_token_ids":[5],"ignore_eos":true,)"
      R"("n":4,"echo":true,"logprobs":3,"prompt_logprobs":2,"min_tokens":1,"logit_bias":{"3":1},"max_time_ms":9})";
  static constexpr std::int32_t kVocabulary = 1536;
  auto parsed = parse_completion(good, {}, kVocabulary);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  Random random(2);
  int accepted = 0;
  for (int i = 0; i < 10000; ++i) {
    Parsed<CompletionRequest> request = parse_completion(mutate(good, random), {}, kVocabulary);
    if (!request) {
      expect_refusal(request.error());
      continue;
    }
    ++accepted;
    EXPECT_LE(request->prompts.size() * static_cast<std::size_t>(request->options.n), kMaxChoices);
    EXPECT_FALSE(request->suffix && request->echo);
    for (const auto& prompt : request->prompts) {
      if (const auto* ids = std::get_if<std::vector<engine::TokenId>>(&prompt)) {
        for (engine::TokenId id : *ids) EXPECT_TRUE(id >= 0 && id < kVocabulary);
      }
    }
    expect_in_bounds(request->options);
  }
  EXPECT_GT(accepted, 100);
}

// The bodies of the other APIs: `parse` gives the chat that they stand for.
template <typename Parse>
void expect_chats(const std::string& good, std::uint64_t seed, const Parse& parse) {
  const Parsed<ChatRequest> parsed = parse(good);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  Random random(seed);
  int accepted = 0;
  for (int i = 0; i < 5000; ++i) {
    const Parsed<ChatRequest> request = parse(mutate(good, random));
    if (!request) {
      expect_refusal(request.error());
      continue;
    }
    ++accepted;
    EXPECT_FALSE(request->messages.empty());
    expect_in_bounds(request->options);
  }
  EXPECT_GT(accepted, 50);
}

TEST(RequestFuzz, AResponsesRequestIsRefusedOrWithinBounds) {
  expect_chats(
      R"({"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text","text":"y"}]},)"
      R"({"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"t"}]},)"
      R"({"type":"function_call","call_id":"1","name":"f","arguments":"{}"},)"
      R"({"type":"function_call_output","call_id":"1","output":"x"}],"store":false,"metadata":{"a":"b"},)"
      R"("max_output_tokens":8,"temperature":0.7,"stream":true,"reasoning":{"effort":"high"},"text":{"format":{"type":"text"}}})",
      4, [](const std::string& body) -> Parsed<ChatRequest> {
        auto request = parse_responses(body, {});
        if (!request) return std::unexpected(request.error());
        EXPECT_TRUE(nlohmann::json::parse(request->echo).is_object());
        return std::move(request->chat);
      });
}

TEST(RequestFuzz, AMessagesRequestIsRefusedOrWithinBounds) {
  expect_chats(
      R"({"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"a"},)"
      R"({"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":""},{"type":"tool_use","id":"1","name":"f","input":{"a":[1]}}]},)"
      R"({"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"x"},{"type":"text","text":"y"}]}],)"
      R"("stop_sequences":["END"],"thinking":{"type":"enabled","budget_tokens":1024},"top_k":3,"stream":true})",
      5, [](const std::string& body) { return parse_messages(body, {}, true); });
}

TEST(RequestFuzz, ASimpleRequestIsRefusedOrWithinBounds) {
  expect_chats(R"({"prompt":"hi","max_tokens":8,"temperature":0.5,"stop":["x"],"stream":false})", 6,
               [](const std::string& body) { return parse_inference(body, "m", {}); });
  const std::string tokens = R"({"tokens":[1,2,3,1535],"model":"m"})";
  Random random(7);
  for (int i = 0; i < 3000; ++i) {
    const auto request = parse_detokenize(mutate(tokens, random), "m", 1536);
    if (!request) {
      expect_refusal(request.error());
      continue;
    }
    for (const engine::TokenId id : request->tokens) EXPECT_TRUE(id >= 0 && id < 1536);
  }
}

// The slices of a text say what the parser says of it.
void expect_slices(std::string_view text, const nlohmann::json& value) {
  if (value.is_object()) {
    for (const auto& [name, member] : value.items()) {
      const std::string_view slice = member_text(text, name);
      EXPECT_EQ(nlohmann::json::parse(slice, nullptr, false), member) << text;
      expect_slices(slice, member);
    }
  } else if (value.is_array()) {
    const auto slices = element_texts(text);
    ASSERT_EQ(slices.size(), value.size()) << text;
    for (std::size_t i = 0; i < slices.size(); ++i) {
      EXPECT_EQ(nlohmann::json::parse(slices[i], nullptr, false), value[i]) << text;
      expect_slices(slices[i], value[i]);
    }
  }
}

TEST(RequestFuzz, SlicesOfAValidBodyAreItsValues) {
  const std::string good =
      R"({"a": [1, -2.5e3, "x,]}", {"b\u0062": "\\", "c": [[], {}, [null]]}] , "a\"b":{"":true},)"
      "\n\t\"\xC3\xA9\":false, \"d\" : \"\\\\\\\"\" }";
  ASSERT_TRUE(parse_object(good).has_value());
  Random random(5);
  int valid = 0;
  for (int i = 0; i < 20000; ++i) {
    const std::string text = i == 0 ? good : mutate(good, random);
    const auto value = parse_object(text);
    if (!value) continue;
    ++valid;
    expect_slices(text, *value);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(valid, 500);
}

TEST(RequestFuzz, ABodyThatIsVeryDeepIsRefused) {
  for (const char* open : {"[", "{\"a\":", "[{\"a\":["}) {
    std::string body = "{\"messages\":";
    for (int i = 0; i < 200000; ++i) body += open;
    EXPECT_FALSE(parse_chat(body, {}).has_value());
  }
}

TEST(RequestFuzz, ABrokenGenerationConfigIsRefusedOrUsable) {
  const std::string good =
      R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1})";
  Random random(3);
  for (int i = 0; i < 3000; ++i) {
    Result<SamplingDefaults> defaults = parse_generation_config(mutate(good, random));
    if (!defaults) {
      EXPECT_EQ(defaults.error().kind, ErrorKind::kInvalid);
      continue;
    }
    engine::SamplingParams params;
    params.temperature = defaults->temperature;
    params.top_p = defaults->top_p;
    params.top_k = defaults->top_k;
    params.min_p = defaults->min_p;
    EXPECT_TRUE(defaults->repetition_penalty > 0 && defaults->repetition_penalty <= 2);
    EXPECT_TRUE(engine::validate(params).has_value());
  }
}

}  // namespace
}  // namespace dsm::server
