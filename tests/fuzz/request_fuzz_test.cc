// Request bodies from anywhere: parsed into values within bounds, or refused with 400 and a
// sentence.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/fuzz/mutate.h"
#include "worker/server/api_request.h"
#include "worker/server/inference_request.h"
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
      R"("stream_options":{"include_usage":true},"chat_template_kwargs":{"thinking":true},"n":1})";
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
    EXPECT_FALSE(request->messages.empty());
    expect_in_bounds(request->options);
  }
  EXPECT_GT(accepted, 100);
}

TEST(RequestFuzz, ACompletionRequestIsRefusedOrWithinBounds) {
  const std::string good =
      R"({"model":"m","prompt":[[1,2,3],[4]],"max_tokens":8,"stop":"x","stop_token_ids":[5],"ignore_eos":true})";
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
    EXPECT_LE(request->prompts.size(), kMaxPrompts);
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

TEST(RequestFuzz, ABodyThatIsVeryDeepIsRefused) {
  for (const char* open : {"[", "{\"a\":", "[{\"a\":["}) {
    std::string body = "{\"messages\":";
    for (int i = 0; i < 200000; ++i) body += open;
    EXPECT_FALSE(parse_chat(body, {}).has_value());
  }
}

TEST(RequestFuzz, ABrokenGenerationConfigIsRefusedOrUsable) {
  const std::string good = R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20})";
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
    EXPECT_TRUE(engine::validate(params).has_value());
  }
}

}  // namespace
}  // namespace dsm::server
