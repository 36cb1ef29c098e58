// From tokens to what a client gets, with a parser that says what the test tells it to.
#include "worker/server/choice_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "worker/server/plain_output.h"
#include "worker/text/test_tokenizer.h"

namespace dsm::server {
namespace {

using engine::FinishReason;
using engine::PositionLogprobs;
using engine::TokenId;
using ::testing::ElementsAre;
using ::testing::StartsWith;
using Parsed = text::OutputParser::Delta;

// Token i gives the i-th of these; the end gives the last one.
class ScriptedParser final : public text::OutputParser {
 public:
  explicit ScriptedParser(std::vector<Parsed> script, Parsed end = {})
      : script_(std::move(script)), end_(std::move(end)) {}
  Delta push(std::int32_t id) override { return script_.at(static_cast<std::size_t>(id)); }
  Delta finish() override { return end_; }
  bool in_reasoning() const override { return false; }
  int reasoning_tokens() const override { return 3; }

 private:
  std::vector<Parsed> script_;
  Parsed end_;
};

Parsed answer(const std::string& text) {
  return {.reasoning = "", .content = text, .tool_calls = {}};
}
Parsed thought(const std::string& text) {
  return {.reasoning = text, .content = "", .tool_calls = {}};
}
Parsed call(int index, const std::string& name, const std::string& arguments) {
  return {.reasoning = "",
          .content = "",
          .tool_calls = {{.index = index, .name = name, .arguments = arguments}}};
}

PositionLogprobs logprobs_of(TokenId token) {
  return {.chosen = {token, -0.5F - static_cast<float>(token)},
          .top = {{token, -0.5F}, {token + 1, -1.5F}}};
}
std::vector<TokenId> tokens_of(const std::vector<PositionLogprobs>& positions) {
  std::vector<TokenId> tokens;
  tokens.reserve(positions.size());
  for (const auto& position : positions) tokens.push_back(position.chosen.token);
  return tokens;
}

// An output whose calls are named call_0, call_1, ...
ChoiceOutput scripted(std::vector<Parsed> script, ChoiceOutput::Options options = {},
                      Parsed end = {}) {
  options.make_call_id = [made = 0]() mutable { return "call_" + std::to_string(made++); };
  return {std::make_unique<ScriptedParser>(std::move(script), std::move(end)), std::move(options)};
}
ChoiceOutput::Delta push(ChoiceOutput& output, TokenId token) {
  const PositionLogprobs logprobs = logprobs_of(token);
  return output.push(token, &logprobs);
}

TEST(ChoiceOutput, hands_on_what_the_parser_says) {
  auto output = scripted({thought("hm"), answer("yes"), {}}, {}, answer("!"));
  EXPECT_EQ(output.push(0).reasoning, "hm");
  EXPECT_EQ(output.push(1).content, "yes");
  EXPECT_EQ(output.push(2).content, "");
  EXPECT_EQ(output.finish().content, "!");
  EXPECT_EQ(output.tokens(), 3);
  EXPECT_EQ(output.reasoning_tokens(), 3);
  EXPECT_EQ(output.finish_reason(FinishReason::kStop), "stop");
  EXPECT_EQ(output.finish_reason(FinishReason::kLength), "length");
}

TEST(ChoiceOutput, looks_for_stop_strings_in_the_answer_alone) {
  auto output =
      scripted({thought("END"), call(0, "f", "END"), answer("a E"), answer("N"), answer("D b")},
               {.stops = {"END"}});
  EXPECT_EQ(output.push(0).reasoning, "END");
  EXPECT_EQ(output.push(1).tool_calls.at(0).arguments, "END");
  EXPECT_EQ(output.push(2).content, "a ");
  EXPECT_EQ(output.push(3).content, "");
  const auto last = output.push(4);
  EXPECT_EQ(last.content, "");
  EXPECT_TRUE(last.stopped);
  EXPECT_EQ(output.stop_string(), "END");
  EXPECT_EQ(output.finish().content, "") << "nothing comes after a stop string";
}

TEST(ChoiceOutput, a_call_ends_what_may_become_a_stop_string) {
  auto output = scripted({answer("x EN"), call(0, "f", "{}"), answer("D")}, {.stops = {"END"}});
  EXPECT_EQ(output.push(0).content, "x ");
  const auto called = output.push(1);
  EXPECT_EQ(called.content, "EN");
  EXPECT_EQ(called.tool_calls.at(0).name, "f");
  EXPECT_EQ(output.push(2).content, "D");
}

TEST(ChoiceOutput, gives_each_call_an_id_in_its_first_piece) {
  auto output = scripted({call(0, "f", ""), call(0, "", "{}"), call(1, "g", "{\"x\":1}")});
  const auto first = output.push(0).tool_calls.at(0);
  EXPECT_EQ(first.index, 0);
  EXPECT_EQ(first.id, "call_0");
  EXPECT_EQ(first.name, "f");
  const auto rest = output.push(1).tool_calls.at(0);
  EXPECT_EQ(rest.id, "");
  EXPECT_EQ(rest.arguments, "{}");
  const auto second = output.push(2).tool_calls.at(0);
  EXPECT_EQ(second.index, 1);
  EXPECT_EQ(second.id, "call_1");
  EXPECT_EQ(output.finish_reason(FinishReason::kStop), "tool_calls");
  EXPECT_EQ(output.finish_reason(FinishReason::kLength), "length");
}

TEST(ChoiceOutput, ids_are_random_when_nobody_makes_them) {
  const auto id = [] {
    ChoiceOutput output(std::make_unique<ScriptedParser>(std::vector<Parsed>{call(0, "f", "")}),
                        {});
    return output.push(0).tool_calls.at(0).id;
  };
  EXPECT_THAT(id(), StartsWith("call_"));
  EXPECT_NE(id(), id());
}

TEST(ChoiceOutput, a_second_call_ends_it_where_one_is_allowed) {
  auto output = scripted({call(0, "f", "{}"), call(1, "g", "{}")}, {.one_tool_call = true});
  EXPECT_FALSE(output.push(0).stopped);
  const auto second = output.push(1);
  EXPECT_TRUE(second.stopped);
  EXPECT_TRUE(second.tool_calls.empty());
  EXPECT_EQ(output.finish_reason(FinishReason::kStop), "tool_calls");
}

TEST(ChoiceOutput, log_probabilities_go_with_the_last_byte_of_their_text) {
  auto output = scripted({answer("a"), answer("b E"), answer("N"), answer("X"), {}, answer("c")},
                         {.stops = {"END"}});
  EXPECT_THAT(tokens_of(push(output, 0).logprobs), ElementsAre(0));
  const auto held = push(output, 1);
  EXPECT_EQ(held.content, "b ");
  EXPECT_THAT(tokens_of(held.logprobs), ElementsAre()) << "its last byte is held back";
  EXPECT_THAT(tokens_of(push(output, 2).logprobs), ElementsAre());
  EXPECT_THAT(tokens_of(push(output, 3).logprobs), ElementsAre(1, 2, 3));
  EXPECT_THAT(tokens_of(push(output, 4).logprobs), ElementsAre()) << "it has no text yet";
  EXPECT_THAT(tokens_of(push(output, 5).logprobs), ElementsAre(4, 5));
}

TEST(ChoiceOutput, tokens_of_which_a_stop_string_leaves_nothing_are_not_told) {
  auto output = scripted({answer("a E"), answer("N"), answer("D")}, {.stops = {"END"}});
  push(output, 0);
  push(output, 1);
  const auto last = push(output, 2);
  EXPECT_TRUE(last.stopped);
  EXPECT_THAT(tokens_of(last.logprobs), ElementsAre(0));
}

TEST(ChoiceOutput, the_end_gives_the_log_probabilities_that_still_wait) {
  auto output = scripted({answer("a E"), {}}, {.stops = {"END"}});
  push(output, 0);
  push(output, 1);
  const auto end = output.finish();
  EXPECT_EQ(end.content, "E");
  EXPECT_THAT(tokens_of(end.logprobs), ElementsAre(0, 1));
}

TEST(ChoiceOutput, log_probabilities_of_thoughts_and_calls_are_told_too) {
  auto output = scripted({thought("hm"), {}, answer("x"), call(0, "f", "{}")});
  EXPECT_THAT(tokens_of(push(output, 0).logprobs), ElementsAre(0));
  EXPECT_THAT(tokens_of(push(output, 1).logprobs), ElementsAre());
  EXPECT_THAT(tokens_of(push(output, 2).logprobs), ElementsAre(1, 2));
  EXPECT_THAT(tokens_of(push(output, 3).logprobs), ElementsAre(3));
}

TEST(ChoiceOutput, a_prompt_that_is_asked_back_comes_first_and_never_stops_it) {
  auto output = scripted({answer("a"), answer("b")},
                         {.stops = {"END"}, .echo = Echo{.text = "the END ", .tokens = {7, 8}}});
  EXPECT_EQ(output.push(0).content, "the END a");
  EXPECT_EQ(output.push(1).content, "b");
  auto empty = scripted({}, {.echo = Echo{.text = "p", .tokens = {7}}});
  EXPECT_EQ(empty.finish().content, "p") << "also before an answer without tokens";
}

TEST(ChoiceOutput, an_echo_has_the_prompts_log_probabilities_but_of_its_first_token) {
  auto output =
      scripted({answer("a")}, {.echo = Echo{.text = "p", .tokens = {7, 8, 9}, .logprobs = 1}});
  output.prompt({logprobs_of(8), logprobs_of(9)});
  const auto delta = push(output, 0);
  EXPECT_THAT(tokens_of(delta.logprobs), ElementsAre(7, 8, 9, 0));
  EXPECT_TRUE(std::isnan(delta.logprobs[0].chosen.logprob));
  EXPECT_TRUE(delta.logprobs[0].top.empty());
  EXPECT_EQ(delta.logprobs[1].top.size(), 1u) << "no more than were asked for";
  EXPECT_TRUE(delta.prompt_logprobs.empty()) << "they were not asked for by their own name";
}

TEST(ChoiceOutput, the_prompts_log_probabilities_come_once) {
  auto output = scripted({answer("a"), answer("b")}, {.prompt_logprobs = 2});
  output.prompt({logprobs_of(8), logprobs_of(9)});
  EXPECT_THAT(tokens_of(output.push(0).prompt_logprobs), ElementsAre(8, 9));
  EXPECT_TRUE(output.push(1).prompt_logprobs.empty());
}

TEST(ChoiceOutput, deltas_join) {
  ChoiceOutput::Delta delta{.content = "a", .logprobs = {logprobs_of(1)}};
  delta.append({.content = "b",
                .reasoning = "r",
                .tool_calls = {{.index = 0, .name = "f"}},
                .logprobs = {logprobs_of(2)},
                .stopped = true});
  EXPECT_EQ(delta.content, "ab");
  EXPECT_EQ(delta.reasoning, "r");
  EXPECT_EQ(delta.tool_calls.size(), 1u);
  EXPECT_THAT(tokens_of(delta.logprobs), ElementsAre(1, 2));
  EXPECT_TRUE(delta.stopped);
}

TEST(PlainOutput, a_completion_is_all_answer_and_markers_give_no_text) {
  const text::Tokenizer tokenizer = text::default_tokenizer();
  ChoiceOutput output(plain_output(tokenizer), {});
  std::string all;
  for (const std::int32_t id : tokenizer.encode("hm</think>42", text::SpecialTokens::kAllow)) {
    const auto delta = output.push(id);
    EXPECT_EQ(delta.reasoning, "");
    all += delta.content;
  }
  EXPECT_EQ(all + output.finish().content, "hm42");
  EXPECT_EQ(output.reasoning_tokens(), 0);
}

}  // namespace
}  // namespace dsm::server
