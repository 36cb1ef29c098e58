// Requests become sequences: with the real tokenizer and template, and a grammar compiler that
// notes what it is asked for.
#include "worker/server/spec_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/server/request_testing.h"
#include "worker/text/test_tokenizer.h"

namespace dsm::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Ids = std::vector<engine::TokenId>;

constexpr int kContext = 100;
constexpr int kVocabulary = 1536;
constexpr engine::TokenId kEos = 1;

class AnyToken final : public engine::TokenConstraint {
 public:
  bool fill_mask(std::span<std::uint32_t> /*mask*/) override { return false; }
  bool accept(engine::TokenId /*token*/) override { return true; }
  void rollback(int /*tokens*/) override {}
};

class SpecBuilderTest : public ::testing::Test {
 protected:
  static ServedModel make_model() {
    auto tokenizer = text::default_tokenizer();
    auto chat_template = text::ChatTemplate::select(tokenizer);
    return {.name = "m",
            .created = 7,
            .max_model_len = kContext,
            .vocab_size = kVocabulary,
            .tokenizer = std::move(tokenizer),
            .chat_template = *chat_template,
            .eos_tokens = {kEos},
            .defaults = {}};
  }
  // Grammars compile from now on; with an error, they do not.
  void compile_grammars(std::optional<Error> error = {}) {
    model.compile_grammar = [this, error](const grammar::GrammarSpec& grammar,
                                          std::optional<engine::TokenId> after)
        -> Result<std::shared_ptr<engine::TokenConstraint>> {
      compiled.emplace_back(grammar, after);
      if (error) return std::unexpected(*error);
      return std::make_shared<AnyToken>();
    };
  }
  Parsed<GenerationSpec> build(const std::string& fields) const {
    auto request = chat(fields);
    if (!request) return std::unexpected(request.error());
    return chat_spec(model, std::move(*request), meta);
  }
  Parsed<GenerationSpec> complete(const std::string& prompt, const std::string& fields = "") const {
    auto request = parse_completion(
        R"({"model": "m", "prompt": )" + prompt + (fields.empty() ? "" : ", " + fields) + "}", {},
        kVocabulary);
    if (!request) return std::unexpected(request.error());
    return completion_spec(model, std::move(*request), meta);
  }
  Ids ids(const std::string& text) const {
    return model.tokenizer.encode(text, text::SpecialTokens::kAllow);
  }

  ServedModel model = make_model();
  RequestMeta meta{.request_id = "req-1",
                   .created = 5,
                   .arrived = TimePoint(Millis(1000)),
                   .time_limit = std::nullopt};
  std::vector<std::pair<grammar::GrammarSpec, std::optional<engine::TokenId>>> compiled;
};

TEST_F(SpecBuilderTest, a_chat_becomes_a_sequence) {
  const auto spec = build(R"("max_tokens": 9, "min_tokens": 2, "seed": 5, "priority": -1,
      "cache_salt": "s", "stop_token_ids": [7], "logprobs": true, "top_logprobs": 2,
      "prompt_logprobs": 1, "presence_penalty": 1, "logit_bias": {"3": 4}, "temperature": 0.5)");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_THAT(spec->head.id, StartsWith("chatcmpl-"));
  EXPECT_EQ(spec->head.created, 5);
  EXPECT_EQ(spec->head.model, "m");
  EXPECT_EQ(spec->request_id, "req-1");
  EXPECT_EQ(spec->arrived, meta.arrived);
  EXPECT_EQ(spec->prompt_param, "messages");
  EXPECT_EQ(spec->reasoning, ChoiceOutput::Reasoning::kAnswer);
  EXPECT_EQ(spec->n, 1);
  ASSERT_EQ(spec->sequences.size(), 1u);
  ASSERT_EQ(spec->outputs.size(), 1u);
  const engine::GenerateRequest& one = spec->sequences[0];
  EXPECT_EQ(one.prompt, ids("<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>"));
  EXPECT_EQ(one.max_tokens, 9);
  EXPECT_EQ(one.min_tokens, 2);
  EXPECT_THAT(one.stop_tokens, ElementsAre(7, kEos));
  EXPECT_EQ(one.priority, -1);
  EXPECT_EQ(one.cache_salt, "s");
  EXPECT_EQ(one.prompt_logprobs, 1);
  EXPECT_EQ(one.sampling.seed, 5u);
  EXPECT_EQ(one.sampling.logprobs, 2);
  EXPECT_EQ(one.sampling.presence_penalty, 1.0F);
  EXPECT_EQ(one.sampling.temperature, 0.5F);
  EXPECT_THAT(one.sampling.logit_bias, ElementsAre(engine::LogitBias{3, 4}));
  EXPECT_FALSE(one.deadline.has_value());
  EXPECT_EQ(one.constraint, nullptr);
}

TEST_F(SpecBuilderTest, the_name_of_an_adapter_chooses_it_for_every_sequence) {
  model.adapters = std::make_shared<Adapters>(Adapters::Options{
      .base = "m", .load = [](const std::string& name, const std::filesystem::path&) {
        return std::make_shared<const engine::Adapter>(engine::Adapter{.id = 3, .name = name});
      }});
  ASSERT_TRUE(model.adapters->add("sql", "/somewhere", 0));
  auto request = chat(R"("n": 2)");
  ASSERT_TRUE(request.has_value());
  request->model = "sql";
  const auto spec = chat_spec(model, *request, meta);
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(spec->head.model, "sql");
  ASSERT_EQ(spec->sequences.size(), 2u);
  for (const auto& one : spec->sequences) EXPECT_EQ(one.adapter, model.adapters->find("sql"));
  EXPECT_EQ(build("")->sequences[0].adapter, nullptr);
  request->model = "SQL";
  EXPECT_EQ(chat_spec(model, *request, meta).error().status, 404);
}

TEST_F(SpecBuilderTest, lengths_fit_the_context) {
  const auto prompt = static_cast<int>(build("")->sequences[0].prompt.size());
  EXPECT_EQ(build("")->sequences[0].max_tokens, kContext - prompt);
  EXPECT_EQ(build(R"("max_tokens": 5000, "min_tokens": 4000)")->sequences[0].min_tokens,
            kContext - prompt);
  EXPECT_EQ(complete(R"("a")")->sequences[0].max_tokens, 16);
  EXPECT_THAT(refusal_of(complete(R"("a")", R"("min_tokens": 17)")), StartsWith("min_tokens: "));
  const auto too_long = complete("\"" + std::string(100'000, 'a') + "\"");
  ASSERT_FALSE(too_long.has_value());
  EXPECT_EQ(too_long.error().code, "context_length_exceeded");
  EXPECT_EQ(too_long.error().param, "prompt");
}

TEST_F(SpecBuilderTest, ignoring_the_end_leaves_the_clients_stop_tokens) {
  EXPECT_THAT(build(R"("ignore_eos": true, "stop_token_ids": [7])")->sequences[0].stop_tokens,
              ElementsAre(7));
}

TEST_F(SpecBuilderTest, choices_of_a_prompt_differ_in_their_seeds_and_the_first_has_the_requests) {
  const auto spec = build(R"("n": 3, "seed": 11)");
  ASSERT_TRUE(spec.has_value());
  EXPECT_EQ(spec->n, 3);
  ASSERT_EQ(spec->sequences.size(), 3u);
  EXPECT_EQ(spec->outputs.size(), 3u);
  EXPECT_EQ(spec->sequences[0].sampling.seed, 11u);
  EXPECT_NE(spec->sequences[1].sampling.seed, spec->sequences[0].sampling.seed);
  EXPECT_NE(spec->sequences[1].sampling.seed, spec->sequences[2].sampling.seed);
  EXPECT_EQ(spec->sequences[1].sampling.seed,
            build(R"("n": 2, "seed": 11)")->sequences[1].sampling.seed)
      << "a function of the request's seed and the index alone";
  EXPECT_EQ(spec->sequences[2].prompt, spec->sequences[0].prompt);
  const auto prompts = complete(R"(["a", "b"])", R"("n": 2, "seed": 11)");
  ASSERT_EQ(prompts->sequences.size(), 4u);
  EXPECT_EQ(prompts->sequences[0].prompt, prompts->sequences[1].prompt);
  EXPECT_NE(prompts->sequences[1].prompt, prompts->sequences[2].prompt);
  EXPECT_NE(build("")->sequences[0].sampling.seed, build("")->sequences[0].sampling.seed)
      << "without a seed it is random";
}

TEST_F(SpecBuilderTest, the_shorter_time_limit_counts_from_the_arrival) {
  EXPECT_EQ(build(R"("max_time_ms": 500)")->sequences[0].deadline, TimePoint(Millis(1500)));
  meta.time_limit = Millis(200);
  EXPECT_EQ(build("")->sequences[0].deadline, TimePoint(Millis(1200)));
  EXPECT_EQ(build(R"("max_time_ms": 500)")->sequences[0].deadline, TimePoint(Millis(1200)));
  EXPECT_EQ(build(R"("max_time_ms": 100)")->sequences[0].deadline, TimePoint(Millis(1100)));
}

TEST_F(SpecBuilderTest, refuses_token_ids_that_the_model_does_not_have) {
  EXPECT_THAT(refusal_of(build(R"("logit_bias": {"1536": 1})")), StartsWith("logit_bias: "));
  EXPECT_THAT(refusal_of(build(R"("stop_token_ids": [1536])")), StartsWith("stop_token_ids: "));
  EXPECT_EQ(refusal_of(build(R"("logit_bias": {"1535": 1}, "stop_token_ids": [1535])")),
            "accepted");
}

TEST_F(SpecBuilderTest, another_model_is_not_found) {
  model.name = "other";
  const auto spec = build("");
  ASSERT_FALSE(spec.has_value());
  EXPECT_EQ(spec.error().status, 404);
  EXPECT_EQ(spec.error().code, "model_not_found");
}

TEST_F(SpecBuilderTest, a_format_becomes_a_constraint_of_each_choice) {
  compile_grammars();
  const auto spec = build(R"("n": 2, "response_format": {"type": "json_object"})");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  ASSERT_NE(spec->sequences[0].constraint, nullptr);
  EXPECT_NE(spec->sequences[0].constraint, spec->sequences[1].constraint)
      << "each has its own state";
  ASSERT_EQ(compiled.size(), 2u);
  EXPECT_EQ(compiled[0].first.kind, grammar::Kind::kJsonObject);
  EXPECT_EQ(compiled[0].second, std::nullopt) << "the answer begins at once";
  ASSERT_TRUE(complete(R"("a")", R"("guided_regex": "x+")").has_value());
  EXPECT_EQ(compiled.back().first.text, "x+");
}

TEST_F(SpecBuilderTest, a_format_leaves_the_thought_free) {
  compile_grammars();
  const auto spec =
      build(R"("thinking": {"type": "enabled"}, "response_format": {"type": "json_object"})");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(spec->reasoning, ChoiceOutput::Reasoning::kInside);
  EXPECT_EQ(compiled.at(0).second, ids("</think>").at(0));
}

TEST_F(SpecBuilderTest, a_format_that_cannot_be_kept_is_refused_under_its_name) {
  EXPECT_THAT(refusal_of(build(R"("response_format": {"type": "json_object"})")),
              StartsWith("response_format: "))
      << "without a compiler";
  compile_grammars(Error{ErrorKind::kInvalid, "too large", 0});
  EXPECT_THAT(refusal_of(build(R"("response_format": {"type": "json_object"})")),
              HasSubstr("response_format: 'response_format' cannot be kept to: too large"));
  EXPECT_THAT(refusal_of(complete(R"("a")", R"("guided_regex": "(")")),
              StartsWith("guided_regex: "));
  compile_grammars(Error{ErrorKind::kInternal, "broken", 0});
  const auto broken = build(R"("response_format": {"type": "json_object"})");
  ASSERT_FALSE(broken.has_value());
  EXPECT_EQ(broken.error().status, 500);
}

const char* const kTools =
    R"("tools": [{"type": "function", "function": {"name": "get_weather", "description": "d",
                   "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}])";

TEST_F(SpecBuilderTest, tools_need_a_template_that_has_them) {
  const std::string tools = kTools;
  EXPECT_THAT(refusal_of(build(tools)), StartsWith("tools: "));
  EXPECT_EQ(refusal_of(build(tools + R"(, "tool_choice": "none")")), "accepted");
  auto history = parse_chat(
      R"({"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "assistant",
          "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
          {"role": "tool", "tool_call_id": "a", "content": "y"}]})",
      {});
  ASSERT_TRUE(history.has_value()) << history.error().message;
  EXPECT_THAT(refusal_of(chat_spec(model, std::move(*history), meta)), StartsWith("tools: "));
}

// A model whose template has tools.
class ToolSpecTest : public SpecBuilderTest {
 protected:
  ToolSpecTest() {
    auto chosen = text::ChatTemplate::by_name(model.tokenizer, "deepseek-v3.1");
    if (chosen) model.chat_template = *chosen;
    model.max_model_len = 2048;
    compile_grammars();
  }
  // The output's pieces when the model says this.
  static ChoiceOutput::Delta say(GenerationSpec& spec, const Ids& tokens) {
    ChoiceOutput::Delta all;
    for (const engine::TokenId token : tokens) {
      if (!all.stopped) all.append(spec.outputs[0].push(token));
    }
    if (!all.stopped) all.append(spec.outputs[0].finish());
    return all;
  }
  static std::string call_of(const std::string& city) {
    return R"(<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city":")" + city +
           R"("}<｜tool▁call▁end｜>)";
  }
};

TEST_F(ToolSpecTest, the_prompt_tells_of_tools_and_the_output_finds_calls) {
  auto spec = build(kTools);
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_THAT(model.tokenizer.decode(spec->sequences[0].prompt, false), HasSubstr("get_weather"));
  EXPECT_EQ(spec->sequences[0].constraint, nullptr) << "the model may answer freely";
  const auto said = say(*spec, ids("Let me see.<｜tool▁calls▁begin｜>" + call_of("Paris") +
                                   call_of("Rome") + "<｜tool▁calls▁end｜>"));
  EXPECT_EQ(said.content, "Let me see.");
  std::vector<std::string> arguments(2);
  std::vector<std::string> names;
  for (const ToolCallDelta& piece : said.tool_calls) {
    if (!piece.name.empty()) names.push_back(piece.name);
    arguments.at(static_cast<std::size_t>(piece.index)) += piece.arguments;
  }
  EXPECT_THAT(names, ElementsAre("get_weather", "get_weather"));
  EXPECT_THAT(arguments, ElementsAre(R"({"city":"Paris"})", R"({"city":"Rome"})"));
  EXPECT_EQ(spec->outputs[0].finish_reason(engine::FinishReason::kStop), "tool_calls");
}

TEST_F(ToolSpecTest, without_parallel_calls_the_second_one_is_not_begun) {
  auto spec = build(std::string(kTools) + R"(, "parallel_tool_calls": false)");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  const auto said = say(*spec, ids("<｜tool▁calls▁begin｜>" + call_of("Paris") + call_of("Rome") +
                                   "<｜tool▁calls▁end｜>"));
  EXPECT_TRUE(said.stopped);
  for (const ToolCallDelta& piece : said.tool_calls) EXPECT_EQ(piece.index, 0);
}

TEST_F(ToolSpecTest, a_choice_that_requires_a_call_is_a_grammar_behind_the_thought) {
  const auto required = build(std::string(kTools) + R"(, "tool_choice": "required")");
  ASSERT_TRUE(required.has_value()) << required.error().message;
  EXPECT_NE(required->sequences[0].constraint, nullptr);
  ASSERT_EQ(compiled.size(), 1u);
  EXPECT_EQ(compiled[0].first.kind, grammar::Kind::kLark);
  EXPECT_THAT(compiled[0].first.text, HasSubstr("get_weather"));
  EXPECT_EQ(compiled[0].second, std::nullopt);
  const auto named = build(std::string(kTools) + R"(, "thinking": {"type": "enabled"},
      "tool_choice": {"type": "function", "function": {"name": "get_weather"}})");
  ASSERT_TRUE(named.has_value()) << named.error().message;
  EXPECT_EQ(compiled.back().second, ids("</think>").at(0));
  compile_grammars(Error{ErrorKind::kInvalid, "too large", 0});
  EXPECT_THAT(refusal_of(build(std::string(kTools) + R"(, "tool_choice": "required")")),
              StartsWith("tools: "));
}

TEST_F(ToolSpecTest, a_strict_tool_is_held_to_its_schema_where_the_model_chooses) {
  std::string strict = kTools;
  strict.insert(strict.find(R"("name")"), R"("strict": true, )");
  ASSERT_TRUE(build(strict).has_value());
  ASSERT_EQ(compiled.size(), 1u);
  EXPECT_EQ(compiled[0].first.kind, grammar::Kind::kLark);
  EXPECT_THAT(compiled[0].first.text, HasSubstr("(FREE? | opened "));
  ASSERT_TRUE(build(strict + R"(, "thinking": {"type": "enabled"})").has_value());
  EXPECT_EQ(compiled.back().second, std::nullopt) << "a call may end the thought";
  EXPECT_EQ(compiled.back().first.text, compiled[0].first.text);
}

TEST_F(ToolSpecTest, a_refusal_of_the_template_names_its_field) {
  const auto param = [](const std::string& message) {
    return template_error({ErrorKind::kInvalid, message, 0}).error().param;
  };
  EXPECT_EQ(param("tools: x"), "tools");
  EXPECT_EQ(param("thinking: x"), "thinking");
  EXPECT_EQ(param("messages: x"), "messages");
  EXPECT_EQ(param("something else"), "messages");
}

TEST_F(SpecBuilderTest, a_completion_has_a_sequence_for_each_prompt) {
  const auto spec = complete(R"(["say", "it"])");
  ASSERT_TRUE(spec.has_value());
  EXPECT_THAT(spec->head.id, StartsWith("cmpl-"));
  EXPECT_EQ(spec->prompt_param, "prompt");
  EXPECT_EQ(spec->reasoning, ChoiceOutput::Reasoning::kNone);
  ASSERT_EQ(spec->sequences.size(), 2u);
  EXPECT_EQ(spec->sequences[1].prompt, model.tokenizer.encode_prompt("it"));
  EXPECT_EQ(complete("[5, 6]")->sequences[0].prompt, (Ids{5, 6}));
}

TEST_F(SpecBuilderTest, an_echo_gives_the_prompt_back) {
  auto spec = complete(R"("say")", R"("echo": true, "logprobs": 3, "prompt_logprobs": 1)");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  EXPECT_EQ(spec->sequences[0].prompt_logprobs, 3) << "the larger of the two";
  EXPECT_EQ(spec->outputs[0].finish().content, "say");
  auto by_ids = complete("[[20, 21], [22]]", R"("echo": true)");
  ASSERT_TRUE(by_ids.has_value());
  EXPECT_EQ(by_ids->sequences[0].prompt_logprobs, -1);
  EXPECT_EQ(by_ids->outputs[0].finish().content, model.tokenizer.decode(Ids{20, 21}, false));
  EXPECT_EQ(complete(R"("say")")->outputs[0].finish().content, "");
}

TEST_F(SpecBuilderTest, a_suffix_makes_a_gap_to_fill) {
  const auto spec = complete(R"("def f<｜fim▁hole｜>(")", R"("suffix": "return x")");
  ASSERT_TRUE(spec.has_value()) << spec.error().message;
  const Ids& prompt = spec->sequences[0].prompt;
  const auto hole = ids("<｜fim▁hole｜>").at(0);
  EXPECT_EQ(std::count(prompt.begin(), prompt.end(), hole), 1) << "a text cannot forge a marker";
  EXPECT_EQ(model.tokenizer.decode(prompt, false),
            model.tokenizer.decode(model.tokenizer.encode_prompt(""), false) +
                "<｜fim▁begin｜>def f<｜fim▁hole｜>(<｜fim▁hole｜>return x<｜fim▁end｜>");
}

}  // namespace
}  // namespace dsm::server
