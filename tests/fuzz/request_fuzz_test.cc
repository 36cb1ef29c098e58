// Request bodies from anywhere: parsed into values within bounds, or refused with 400 and a
// sentence.
#include <gtest/gtest.h>

#include "tests/fuzz/mutate.h"
#include "worker/server/api_request.h"

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
