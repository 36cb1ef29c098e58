// The grammars of calls, as text; what they accept is tested where they are compiled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/text/chat_markers.h"
#include "worker/text/chat_template.h"
#include "worker/text/fim.h"
#include "worker/text/test_tokenizer.h"

namespace dsm::text {
namespace {

using testing::HasSubstr;

TokenizerJson turns() {
  TokenizerJson file;
  file.all_bytes();
  for (std::string_view marker : {markers::kBos, markers::kEos, markers::kUser, markers::kAssistant,
                                  markers::kThinkOpen, markers::kThinkClose}) {
    file.added(std::string(marker));
  }
  return file;
}

TokenizerJson with_tools() {
  TokenizerJson file = turns();
  for (std::string_view marker : {markers::kCallsBegin, markers::kCallsEnd, markers::kCallBegin,
                                  markers::kCallEnd, markers::kSeparator}) {
    file.added(std::string(marker));
  }
  return file;
}

const std::vector<ToolDefinition> kTools = {
    {.name = "f",
     .description = "",
     .parameters = R"({"properties": {"city": {"type": "string"}, "n": {"$ref": "#/$defs/n"},
                       "unit": {"type": "string", "enum": ["C", "F"]}},
                       "required": ["city"], "$defs": {"n": {"type": "integer"}}})"},
    {.name = "g", .description = "", .parameters = ""}};

std::string grammar(const Tokenizer& tokenizer, std::string_view name,
                    const ToolChoice& choice = {}, bool parallel = true) {
  auto text = ChatTemplate::by_name(tokenizer, name)->tool_grammar(kTools, choice, parallel);
  EXPECT_TRUE(text.has_value()) << (text ? "" : text.error().message);
  return text.value_or("");
}

TEST(ToolGrammar, OfV31HasMarkersAsTokensAndOneRuleForEachTool) {
  Tokenizer tokenizer = with_tools().build();
  std::string text = grammar(tokenizer, "deepseek-v3.1");
  EXPECT_THAT(text, HasSubstr("start:  <｜tool▁calls▁begin｜> call+ <｜tool▁calls▁end｜>"));
  EXPECT_THAT(text, HasSubstr("call: <｜tool▁call▁begin｜> (tool_0 | tool_1) <｜tool▁call▁end｜>"));
  EXPECT_THAT(text, HasSubstr("tool_0: \"f\" <｜tool▁sep｜> args_0\nargs_0: %json {"));
  EXPECT_THAT(text, HasSubstr("args_1: %json {\"type\":\"object\"}"));
}

TEST(ToolGrammar, OfV3IsTypedAndFenced) {
  std::string text = grammar(with_tools().build(), "deepseek-v3-0324");
  EXPECT_THAT(text, HasSubstr(R"(call ("\n" call)*)"));
  EXPECT_THAT(text, HasSubstr(R"("function" <｜tool▁sep｜> "f\n```json\n" args_0 "\n```")"));
}

TEST(ToolGrammar, SpellsMarkersThatAreNoTokens) {
  EXPECT_THAT(grammar(turns().build(), "deepseek-v3.1"), HasSubstr("\"<｜tool▁calls▁begin｜>\""));
}

TEST(ToolGrammar, OfV32HasARuleForEachParameter) {
  TokenizerJson file = turns();
  file.added(std::string(markers::kDsml));
  Tokenizer tokenizer = file.build();
  const std::string mark = "<[" + std::to_string(*tokenizer.special(markers::kDsml)) + "]>";
  std::string text = grammar(tokenizer, "deepseek-v3.2");
  EXPECT_THAT(text,
              HasSubstr("\"<\" " + mark + " \"invoke name=\\\"f\\\">\\n\" p_0_0 p_0_1? p_0_2? "));
  EXPECT_THAT(text, HasSubstr("p_0_0_v[suffix=\"</\"]: "));
  EXPECT_THAT(text, HasSubstr(R"(p_0_1_v: %json {"$ref":"#/$defs/n","$defs":)"));
  EXPECT_THAT(text, HasSubstr(R"(("C</" | "F</"))"));
}

TEST(ToolGrammar, ANamedToolIsTheOnlyOne) {
  std::string text = grammar(with_tools().build(), "deepseek-v3.1",
                             {.mode = ToolChoice::Mode::kNamed, .name = "g"}, /*parallel=*/false);
  EXPECT_THAT(text, HasSubstr("call <｜tool▁calls▁end｜>"));
  EXPECT_THAT(text, testing::Not(HasSubstr("\"f\"")));
}

TEST(ToolGrammar, OfCallsThatMayBeMadeHoldsStrictToolsOnly) {
  std::vector<ToolDefinition> tools = kTools;
  tools[0].strict = true;
  tools.push_back({.name = "odd", .description = "", .parameters = "[1"});
  const auto text = [&](const Tokenizer& tokenizer, std::string_view name) {
    auto made = ChatTemplate::by_name(tokenizer, name)
                    ->tool_grammar(tools, {.mode = ToolChoice::Mode::kAuto}, true);
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message);
    return made.value_or("");
  };
  const std::string named = text(with_tools().build(), "deepseek-v3.1");
  EXPECT_THAT(named, HasSubstr("start: (FREE? thought)* (FREE? | opened call+ "));
  EXPECT_THAT(named, HasSubstr("opened: FREE? <｜tool▁calls▁begin｜>\n"));
  EXPECT_THAT(named, HasSubstr(R"(args_0: %json {"properties":{"city")"));
  EXPECT_THAT(named, HasSubstr(R"(args_2: %json {"type":"object"})"));
  EXPECT_THAT(text(turns().build(), "deepseek-v3.1"),
              HasSubstr("opened[lazy]: FREE \"<｜tool▁calls▁begin｜>\"\n"));
  EXPECT_THAT(text(turns().build(), "deepseek-v3.2"), HasSubstr("any_parameter* "));
}

TEST(ToolGrammar, WhatCannotBeForcedIsRefused) {
  Tokenizer tokenizer = with_tools().build();
  ChatTemplate chat = *ChatTemplate::by_name(tokenizer, "deepseek-v3.1");
  auto message = [](const Result<std::string>& result) {
    return result ? std::string() : result.error().message;
  };
  EXPECT_THAT(message(chat.tool_grammar(kTools, {ToolChoice::Mode::kNamed, "h"}, true)),
              HasSubstr("there is no tool 'h'"));
  EXPECT_THAT(message(chat.tool_grammar({}, {}, true)), HasSubstr("no tools"));
  const ToolDefinition broken{.name = "b", .description = "", .parameters = "[1"};
  EXPECT_THAT(message(chat.tool_grammar({&broken, 1}, {}, true)), HasSubstr("'b'"));
  EXPECT_THAT(
      message(ChatTemplate::by_name(tokenizer, "deepseek-tiny")->tool_grammar(kTools, {}, true)),
      HasSubstr("'deepseek-tiny' has no form for tools"));
}

TEST(Fim, PutsTheTextsBetweenItsMarkers) {
  TokenizerJson file = turns();
  file.added("<｜fim▁begin｜>").added("<｜fim▁hole｜>").added("<｜fim▁end｜>");
  Tokenizer tokenizer = *Tokenizer::parse(
      file.text(), R"({"bos_token": "<｜begin▁of▁sentence｜>", "add_bos_token": true})");
  auto ids = fim_prompt(tokenizer, "a<｜fim▁end｜>", "b");
  ASSERT_TRUE(ids.has_value());
  EXPECT_EQ(tokenizer.decode(*ids, false),
            "<｜begin▁of▁sentence｜><｜fim▁begin｜>a<｜fim▁end｜><｜fim▁hole｜>b<｜fim▁end｜>");
  EXPECT_EQ(std::count(ids->begin(), ids->end(), *tokenizer.special("<｜fim▁end｜>")), 1);
}

TEST(Fim, ATokenizerWithoutItsMarkersIsRefused) {
  Tokenizer tokenizer = turns().build();
  auto ids = fim_prompt(tokenizer, "a", "b");
  ASSERT_FALSE(ids.has_value());
  EXPECT_EQ(ids.error().kind, ErrorKind::kInvalid);
  EXPECT_THAT(ids.error().message, HasSubstr("<｜fim▁begin｜>"));
}

}  // namespace
}  // namespace dsm::text
