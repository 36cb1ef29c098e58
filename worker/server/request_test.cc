// What requests of both kinds say of sampling, lengths, streams and formats; text completions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/server/api_request.h"
#include "worker/server/request_testing.h"

namespace dsm::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(ApiRequest, a_plain_chat_has_the_models_defaults) {
  const auto request = chat("", {.temperature = 0.6F,
                                 .top_p = 0.95F,
                                 .top_k = 7,
                                 .min_p = 0.05F,
                                 .repetition_penalty = 1.1F});
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->model, "m");
  ASSERT_EQ(request->messages.size(), 1u);
  EXPECT_EQ(request->messages[0].content, "hi");
  const GenerationOptions& options = request->options;
  EXPECT_FLOAT_EQ(options.sampling.temperature, 0.6F);
  EXPECT_FLOAT_EQ(options.sampling.top_p, 0.95F);
  EXPECT_EQ(options.sampling.top_k, 7);
  EXPECT_FLOAT_EQ(options.sampling.min_p, 0.05F);
  EXPECT_FLOAT_EQ(options.sampling.repetition_penalty, 1.1F);
  EXPECT_EQ(options.sampling.logprobs, -1);
  EXPECT_EQ(options.prompt_logprobs, -1);
  EXPECT_EQ(options.n, 1);
  EXPECT_FALSE(options.seed.has_value());
  EXPECT_FALSE(options.max_tokens.has_value());
  EXPECT_FALSE(options.max_time.has_value());
  EXPECT_FALSE(options.format.has_value());
  EXPECT_FALSE(request->template_options.thinking);
  EXPECT_TRUE(request->template_options.add_generation_prompt);
  EXPECT_EQ(request->tool_choice.kind, ToolChoice::Kind::kNone);
  EXPECT_TRUE(request->parallel_tool_calls);
}

TEST(ApiRequest, reads_what_it_can_honour) {
  const auto request = chat(
      R"("temperature": 0, "top_p": 0.5, "min_p": 0.1, "top_k": -1, "seed": -3, "max_tokens": 5,
         "max_completion_tokens": 6, "min_tokens": 2, "stop": ["a", "", "b"],
         "stop_token_ids": [7], "stream": true, "stream_options": {"include_usage": true},
         "ignore_eos": true, "cache_salt": "s", "n": 3, "best_of": 3, "presence_penalty": -2,
         "frequency_penalty": 0.5, "repetition_penalty": 1.25, "logit_bias": {"10": -100, "9": 1.5},
         "logprobs": true, "top_logprobs": 20, "priority": -5, "max_time_ms": 1500,
         "user": "u", "something_new": {"x": 1})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  const GenerationOptions& options = request->options;
  EXPECT_EQ(options.sampling.temperature, 0.0F);
  EXPECT_EQ(options.sampling.top_k, 0);
  EXPECT_EQ(options.sampling.presence_penalty, -2.0F);
  EXPECT_EQ(options.sampling.frequency_penalty, 0.5F);
  EXPECT_EQ(options.sampling.repetition_penalty, 1.25F);
  EXPECT_THAT(options.sampling.logit_bias,
              ElementsAre(engine::LogitBias{9, 1.5F}, engine::LogitBias{10, -100}));
  EXPECT_EQ(options.sampling.logprobs, 20);
  EXPECT_EQ(options.seed, static_cast<std::uint64_t>(-3));
  EXPECT_EQ(options.n, 3);
  EXPECT_EQ(options.max_tokens, 6);
  EXPECT_EQ(options.min_tokens, 2);
  EXPECT_THAT(options.stop, ElementsAre("a", "b"));
  EXPECT_THAT(options.stop_token_ids, ElementsAre(7));
  EXPECT_TRUE(options.stream);
  EXPECT_TRUE(options.include_usage);
  EXPECT_TRUE(options.ignore_eos);
  EXPECT_EQ(options.cache_salt, "s");
  EXPECT_EQ(options.priority, -5);
  EXPECT_EQ(options.max_time, Millis(1500));
}

TEST(ApiRequest, values_that_ask_for_nothing_are_no_reason_to_refuse) {
  EXPECT_EQ(refusal(R"("n": 1, "best_of": 1, "tools": [], "tool_choice": "auto", "logit_bias": {},
                       "presence_penalty": 0.0, "response_format": {"type": "text"},
                       "logprobs": false, "top_logprobs": 0, "functions": [], "echo": false,
                       "suffix": "", "bad_words": [], "modalities": ["text"], "audio": null,
                       "structured_outputs": {}, "skip_special_tokens": true)"),
            "accepted");
}

TEST(ApiRequest, refuses_what_it_cannot_honour_by_name) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"length_penalty", "2"},
                                                        {"functions", R"([{"name": "f"}])"},
                                                        {"use_beam_search", "true"},
                                                        {"bad_words", R"(["x"])"},
                                                        {"allowed_token_ids", "[1]"},
                                                        {"skip_special_tokens", "false"},
                                                        {"include_reasoning", "false"},
                                                        {"chat_template", R"("{{x}}")"},
                                                        {"documents", "[{}]"},
                                                        {"guided_whitespace_pattern", R"("x")"},
                                                        {"modalities", R"(["audio"])"}}) {
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
           {"min_tokens", "-1"},
           {"n", "0"},
           {"n", "17"},
           {"best_of", "2"},
           {"presence_penalty", "2.5"},
           {"frequency_penalty", "-3"},
           {"repetition_penalty", "0"},
           {"repetition_penalty", "2.5"},
           {"logit_bias", "[]"},
           {"logit_bias", R"({"x": 1})"},
           {"logit_bias", R"({"-1": 1})"},
           {"logit_bias", R"({"01": 1})"},
           {"logit_bias", R"({"1": 101})"},
           {"logit_bias", R"({"1": "5"})"},
           {"logit_bias", R"({"99999999999": 1})"},
           {"logprobs", "5"},
           {"top_logprobs", "21"},
           {"top_logprobs", "3"},
           {"prompt_logprobs", "-1"},
           {"prompt_logprobs", "21"},
           {"priority", "1.5"},
           {"max_time_ms", "0"},
           {"max_time_ms", "86400001"},
           {"cache_salt", "5"},
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
    EXPECT_THAT(refusal("\"" + name + "\": " + value), StartsWith(name + ": ")) << value;
  }
}

TEST(ApiRequest, refuses_what_contradicts_itself) {
  EXPECT_THAT(refusal(R"("max_tokens": 4, "min_tokens": 5)"), StartsWith("min_tokens: "));
  EXPECT_THAT(refusal(R"("n": 2, "best_of": 3)"), StartsWith("best_of: "));
  EXPECT_THAT(refusal(R"("logprobs": false, "top_logprobs": 2)"), StartsWith("top_logprobs: "));
  EXPECT_THAT(refusal(R"("stream": true, "prompt_logprobs": 1)"), StartsWith("prompt_logprobs: "));
  EXPECT_THAT(refusal(R"("echo": true)"), StartsWith("echo: "));
  EXPECT_THAT(refusal(R"("suffix": "x")"), StartsWith("suffix: "));
  EXPECT_THAT(refusal(R"("response_format": {"type": "json_object"}, "ignore_eos": true)"),
              StartsWith("ignore_eos: "));
  EXPECT_THAT(refusal(R"("response_format": {"type": "json_object"}, "min_tokens": 1)"),
              StartsWith("min_tokens: "));
}

TEST(ApiRequest, log_probabilities_are_a_switch_in_a_chat_and_a_number_in_a_completion) {
  EXPECT_EQ(chat(R"("logprobs": true)")->options.sampling.logprobs, 0);
  EXPECT_EQ(chat(R"("logprobs": true, "top_logprobs": 4)")->options.sampling.logprobs, 4);
  EXPECT_EQ(chat(R"("prompt_logprobs": 0)")->options.prompt_logprobs, 0);
  EXPECT_EQ(completion(R"("logprobs": 0)")->options.sampling.logprobs, 0);
  EXPECT_EQ(completion(R"("logprobs": 20)")->options.sampling.logprobs, 20);
  EXPECT_THAT(refusal_of(completion(R"("logprobs": 21)")), StartsWith("logprobs: "));
  EXPECT_THAT(refusal_of(completion(R"("logprobs": true)")), StartsWith("logprobs: "));
  EXPECT_THAT(refusal_of(completion(R"("top_logprobs": 2)")), StartsWith("top_logprobs: "));
}

TEST(ApiRequest, a_format_is_a_grammar_under_the_name_of_its_field) {
  using grammar::Kind;
  struct Case {
    const char* fields;
    Kind kind;
    const char* text;
    const char* param;
  };
  for (const Case& one : {
           Case{R"("response_format": {"type": "json_object"})", Kind::kJsonObject, "",
                "response_format"},
           // The schema is handed on as it was written: in its own order.
           Case{R"("response_format": {"type": "json_schema", "json_schema": {"name": "n",
                   "strict": true, "schema": {"z": 1, "a": {"y": 2,"b":3}}}})",
                Kind::kJsonSchema, R"({"z": 1, "a": {"y": 2,"b":3}})", "response_format"},
           Case{R"("response_format": {"type": "json_object", "schema": {"type": "object"}})",
                Kind::kJsonSchema, R"({"type": "object"})", "response_format"},
           Case{R"("structured_outputs": {"json": {"b": 1, "a": 2}})", Kind::kJsonSchema,
                R"({"b": 1, "a": 2})", "structured_outputs"},
           Case{R"("structured_outputs": {"json": "{\"b\": 1}"})", Kind::kJsonSchema, R"({"b": 1})",
                "structured_outputs"},
           Case{R"("structured_outputs": {"regex": "a+"})", Kind::kRegex, "a+",
                "structured_outputs"},
           Case{R"("structured_outputs": {"grammar": "start: \"x\""})", Kind::kLark, "start: \"x\"",
                "structured_outputs"},
           Case{R"("structured_outputs": {"json_object": true})", Kind::kJsonObject, "",
                "structured_outputs"},
           Case{R"("guided_json": {"b": 1})", Kind::kJsonSchema, R"({"b": 1})", "guided_json"},
           Case{R"("guided_regex": "[0-9]")", Kind::kRegex, "[0-9]", "guided_regex"},
           Case{R"("guided_grammar": "start: /a/")", Kind::kLark, "start: /a/", "guided_grammar"},
       }) {
    const auto request = chat(one.fields);
    ASSERT_TRUE(request.has_value()) << one.fields << ": " << request.error().message;
    ASSERT_TRUE(request->options.format.has_value()) << one.fields;
    EXPECT_EQ(request->options.format->grammar.kind, one.kind) << one.fields;
    EXPECT_EQ(request->options.format->grammar.text, one.text) << one.fields;
    EXPECT_EQ(request->options.format->param, one.param) << one.fields;
  }
  for (const char* fields : {R"("structured_outputs": {"choice": ["yes", "no"]})",
                             R"("guided_choice": ["yes", "no"])"}) {
    const auto request = completion(fields);
    ASSERT_TRUE(request.has_value()) << request.error().message;
    EXPECT_EQ(request->options.format->grammar.kind, Kind::kChoice);
    EXPECT_THAT(request->options.format->grammar.choices, ElementsAre("yes", "no"));
  }
}

TEST(ApiRequest, a_format_that_says_nothing_or_too_much_is_refused) {
  for (
      const auto& [fields, param] : std::vector<std::pair<std::string, std::string>>{
          {R"("response_format": "json")", "response_format"},
          {R"("response_format": {})", "response_format.type"},
          {R"("response_format": {"type": "xml"})", "response_format.type"},
          {R"("response_format": {"type": "json_schema"})", "response_format.json_schema"},
          {R"("response_format": {"type": "json_schema", "json_schema": {"name": "x"}})",
           "response_format.json_schema.schema"},
          {R"("response_format": {"type": "json_schema", "json_schema": {"schema": []}})",
           "response_format.json_schema.schema"},
          {R"("response_format": {"type": "json_schema", "json_schema": {"strict": 1, "schema": {}}})",
           "response_format.json_schema.strict"},
          {R"("structured_outputs": [])", "structured_outputs"},
          {R"("structured_outputs": {"json": "nonsense"})", "structured_outputs.json"},
          {R"("structured_outputs": {"regex": ""})", "structured_outputs.regex"},
          {R"("structured_outputs": {"regex": 5})", "structured_outputs.regex"},
          {R"("structured_outputs": {"choice": []})", "structured_outputs.choice"},
          {R"("structured_outputs": {"choice": [""]})", "structured_outputs.choice"},
          {R"("structured_outputs": {"choice": [1]})", "structured_outputs.choice"},
          {R"("structured_outputs": {"structural_tag": "x"})", "structured_outputs.structural_tag"},
          {R"("structured_outputs": {"regex": "a", "choice": ["a"]})", "structured_outputs"},
          {R"("guided_json": 5)", "guided_json"},
          {R"("guided_regex": "a", "response_format": {"type": "json_object"})", "guided_regex"},
          {R"("guided_regex": ")" + std::string(kMaxGrammarBytes + 1, 'a') + "\"",
           "guided_regex"}}) {
    EXPECT_THAT(refusal(fields), StartsWith(param + ": ")) << fields.substr(0, 200);
  }
}

TEST(ApiRequest, a_time_limit_in_a_header_is_a_number_of_milliseconds) {
  EXPECT_EQ(parse_time_limit(""), std::nullopt);
  EXPECT_EQ(parse_time_limit("250"), Millis(250));
  for (const char* wrong : {"0", "-1", "1.5", "1s", " 1", "86400001", "99999999999999999999"}) {
    const auto limit = parse_time_limit(wrong);
    ASSERT_FALSE(limit.has_value()) << wrong;
    EXPECT_EQ(limit.error().param, "X-Request-Timeout-Ms");
  }
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

TEST(ApiRequest, a_completion_can_echo_its_prompt_or_fill_a_gap) {
  EXPECT_TRUE(completion(R"("echo": true)")->echo);
  EXPECT_FALSE(completion("")->echo);
  EXPECT_EQ(completion(R"("suffix": "end")")->suffix, "end");
  EXPECT_EQ(completion(R"("suffix": "")")->suffix, std::nullopt);
  EXPECT_THAT(refusal_of(completion(R"("suffix": "x", "echo": true)")), StartsWith("suffix: "));
  EXPECT_THAT(refusal_of(parse_completion(R"({"model": "m", "prompt": ["a", "b"], "suffix": "x"})",
                                          {}, 10)),
              StartsWith("suffix: "));
  EXPECT_THAT(
      refusal_of(parse_completion(R"({"model": "m", "prompt": [1, 2], "suffix": "x"})", {}, 10)),
      StartsWith("suffix: "));
}

TEST(ApiRequest, a_completion_has_no_tools_and_a_bound_of_choices) {
  EXPECT_THAT(refusal_of(completion(R"("tools": [{}])")), StartsWith("tools: "));
  EXPECT_THAT(refusal_of(completion(R"("tool_choice": "required")")), StartsWith("tool_choice: "));
  std::string prompts = R"("x")";
  for (int i = 1; i < 128; ++i) prompts += R"(, "x")";
  const auto with_n = [&](int n) {
    return refusal_of(parse_completion(
        R"({"model": "m", "prompt": [)" + prompts + R"(], "n": )" + std::to_string(n) + "}", {},
        10));
  };
  EXPECT_EQ(with_n(2), "accepted");
  EXPECT_THAT(with_n(3), StartsWith("n: "));
}

TEST(ApiRequest, the_generation_config_gives_the_defaults) {
  const auto greedy = parse_generation_config(R"({"do_sample": false, "eos_token_id": 1})");
  ASSERT_TRUE(greedy.has_value());
  EXPECT_EQ(greedy->temperature, 0.0F);
  const auto sampled = parse_generation_config(
      R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.05})");
  ASSERT_TRUE(sampled.has_value());
  EXPECT_FLOAT_EQ(sampled->temperature, 0.6F);
  EXPECT_FLOAT_EQ(sampled->repetition_penalty, 1.05F);
  EXPECT_EQ(parse_generation_config("")->temperature, 1.0F);
  EXPECT_FALSE(parse_generation_config("[]").has_value());
  EXPECT_FALSE(parse_generation_config(R"({"temperature": "x"})").has_value());
}

}  // namespace
}  // namespace dsm::server
