// Request bodies from anywhere.
#include "tests/fuzz/fuzzer.h"
#include "worker/server/api_request.h"

namespace {

using namespace dsm;
using fuzz::expect;

void expect_in_bounds(const server::GenerationOptions& options) {
  expect(engine::validate(options.sampling).has_value(), "sampling is valid");
  expect(options.stop.size() <= server::kMaxStops, "stop strings are few");
  expect(!options.max_tokens || *options.max_tokens > 0, "max_tokens is positive");
}

void expect_refusal(const server::ApiError& error) {
  expect(error.status == 400 && !error.message.empty(), "a refusal is a 400 and says why");
}

bool chat(std::string_view input) {
  const auto request = server::parse_chat(input, {});
  if (!request) {
    expect_refusal(request.error());
    return false;
  }
  expect(!request->messages.empty(), "there is a message");
  expect_in_bounds(request->options);
  return true;
}

bool completion(std::string_view input) {
  constexpr std::int32_t kVocabulary = 1536;
  const auto request = server::parse_completion(input, {}, kVocabulary);
  if (!request) {
    expect_refusal(request.error());
    return false;
  }
  expect(request->prompts.size() <= server::kMaxPrompts, "prompts are few");
  for (const auto& prompt : request->prompts) {
    if (const auto* ids = std::get_if<std::vector<engine::TokenId>>(&prompt)) {
      for (const engine::TokenId id : *ids) {
        expect(id >= 0 && id < kVocabulary, "a token is in the vocabulary");
      }
    }
  }
  expect_in_bounds(request->options);
  return true;
}

bool generation_config(std::string_view input) {
  const auto defaults = server::parse_generation_config(input);
  if (!defaults) {
    expect(!defaults.error().message.empty(), "a refusal says why");
    return false;
  }
  engine::SamplingParams params;
  params.temperature = defaults->temperature;
  params.top_p = defaults->top_p;
  params.top_k = defaults->top_k;
  expect(engine::validate(params).has_value(), "defaults are valid");
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr dsm::fuzz::Target kTargets[] = {
      {"chat", chat}, {"completion", completion}, {"generation", generation_config}};
  return dsm::fuzz::fuzz_main(argc, argv, kTargets);
}
