// Outputs taken apart by the rules of each template, with markers that are tokens and with markers
// that the tokenizer only knows as text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "worker/text/chat_markers.h"
#include "worker/text/chat_template.h"
#include "worker/text/test_tokenizer.h"
#include "worker/text/utf8.h"

namespace dsm::text {
namespace {

using namespace markers;

constexpr std::string_view kTurnMarkers[] = {kBos,       kEos,       kUser,
                                             kAssistant, kThinkOpen, kThinkClose};
constexpr std::string_view kOfTools[] = {kCallsBegin, kCallsEnd,  kCallBegin,
                                         kCallEnd,    kSeparator, kDsml};

// Every byte is a token, so text comes in the smallest pieces. As V3's tokenizer has them, the
// markers are added tokens that are not special.
Tokenizer byte_tokenizer(bool tool_tokens) {
  TokenizerJson file;
  file.all_bytes();
  for (std::string_view marker : kTurnMarkers) {
    file.added(std::string(marker), {{"special", false}, {"normalized", false}});
  }
  for (std::string_view marker : kOfTools) {
    if (tool_tokens) {
      file.added(std::string(marker), {{"special", false}, {"normalized", false}});
    }
  }
  return file.build();
}

struct Parsed {
  std::string reasoning;
  std::string content;
  std::map<int, std::pair<std::string, std::string>> calls;  // index -> name, arguments
};

Parsed parse(const Tokenizer& tokenizer, std::string_view name, std::string_view output,
             bool starts_in_reasoning = false, bool tools = true) {
  Result<ChatTemplate> chat = ChatTemplate::by_name(tokenizer, name);
  EXPECT_TRUE(chat.has_value()) << (chat ? "" : chat.error().message);
  auto parser = chat->output_parser(tokenizer, starts_in_reasoning, tools);
  Parsed all;
  auto add = [&](const OutputParser::Delta& delta) {
    EXPECT_TRUE(is_valid_utf8(delta.reasoning) && is_valid_utf8(delta.content));
    all.reasoning += delta.reasoning;
    all.content += delta.content;
    for (const ToolCallPiece& piece : delta.tool_calls) {
      auto& call = all.calls[piece.index];
      if (!piece.name.empty()) {
        EXPECT_EQ(call.first, "") << "a call's name comes once";
        EXPECT_EQ(piece.index + 1, static_cast<int>(all.calls.size())) << "calls come in order";
      }
      call.first += piece.name;
      call.second += piece.arguments;
    }
  };
  for (std::int32_t id : tokenizer.encode(output, SpecialTokens::kAllow)) add(parser->push(id));
  add(parser->finish());
  return all;
}

using Call = std::pair<std::string, std::string>;

std::string typed(const std::string& name, const std::string& arguments) {
  return std::string(kCallBegin) + "function" + std::string(kSeparator) + name + "\n```json\n" +
         arguments + "\n```" + std::string(kCallEnd);
}
std::string named(const std::string& name, const std::string& arguments) {
  return std::string(kCallBegin) + name + std::string(kSeparator) + arguments +
         std::string(kCallEnd);
}
std::string block(const std::string& calls) {
  return std::string(kCallsBegin) + calls + std::string(kCallsEnd);
}
// Tags with "D" for the mark.
std::string dsml(std::string text) {
  for (std::size_t at = 0; (at = text.find('D', at)) != std::string::npos; at += kDsml.size()) {
    text.replace(at, 1, kDsml);
  }
  return text;
}

class Calls : public testing::TestWithParam<bool> {
 protected:
  Parsed typed_output(const std::string& output, bool in_reasoning = false) {
    return parse(tokenizer_, "deepseek-r1", output, in_reasoning);
  }
  Parsed named_output(const std::string& output, bool in_reasoning = false) {
    return parse(tokenizer_, "deepseek-v3.1", output, in_reasoning);
  }
  Parsed dsml_output(const std::string& output, bool in_reasoning = false) {
    return parse(tokenizer_, "deepseek-v3.2", dsml(output), in_reasoning);
  }
  Tokenizer tokenizer_ = byte_tokenizer(GetParam());
};

TEST_P(Calls, OfV3AreTypedAndFenced) {
  Parsed all = typed_output("hm</think>I look." +
                                block(typed("f", R"({"a": "x\n```y"})") + "\n" + typed("g", "{}")) +
                                std::string(kEos),
                            true);
  EXPECT_EQ(all.reasoning, "hm");
  EXPECT_EQ(all.content, "I look.");
  EXPECT_EQ(all.calls[0], Call("f", R"({"a": "x\n```y"})"));
  EXPECT_EQ(all.calls[1], Call("g", "{}"));
}

TEST_P(Calls, OfV3AreUnderstoodWithoutAFence) {
  EXPECT_EQ(typed_output(block(std::string(kCallBegin) + "function" + std::string(kSeparator) +
                               "f\n{\"a\": 1}" + std::string(kCallEnd)))
                .calls[0],
            Call("f", "{\"a\": 1}"));
}

TEST_P(Calls, OfV31AreANameAndItsArguments) {
  Parsed all = named_output(
      "</think>T" + block(named("f", R"({"中": [1]})") + named("g", "{} ")) + std::string(kEos),
      true);
  EXPECT_EQ(all.reasoning, "");
  EXPECT_EQ(all.content, "T");
  EXPECT_EQ(all.calls[0], Call("f", R"({"中": [1]})"));
  EXPECT_EQ(all.calls[1], Call("g", "{}"));
}

TEST_P(Calls, OfV32AreTagsThatBecomeJson) {
  Parsed all = dsml_output(
      "hm</think>I look.\n\n<Dfunction_calls>\n<Dinvoke name=\"f\">\n"
      "<Dparameter name=\"a\" string=\"true\">say \"<b>\" \n中</Dparameter>\n"
      "<Dparameter name=\"n\" string=\"false\">[1, {\"k\": null}]</Dparameter>\n</Dinvoke>\n"
      "<Dinvoke name=\"g\">\n</Dinvoke>\n</Dfunction_calls>",
      true);
  EXPECT_EQ(all.reasoning, "hm");
  EXPECT_EQ(all.content, "I look.");
  EXPECT_EQ(all.calls[0], Call("f", R"({"a": "say \"<b>\" \n中", "n": [1, {"k": null}]})"));
  EXPECT_EQ(all.calls[1], Call("g", "{}"));
}

TEST_P(Calls, AValueOfV32ThatIsNoJsonBecomesAString) {
  Parsed all = dsml_output(
      "<Dfunction_calls>\n<Dinvoke name=\"f\">\n<Dparameter name=\"a\" string=\"false\">True"
      "</Dparameter>\n<Dparameter name=\"b\">2</Dparameter>\n</Dinvoke>\n</Dfunction_calls>");
  EXPECT_EQ(all.calls[0], Call("f", R"({"a": "True", "b": 2})"));
  EXPECT_EQ(all.content, "");
}

TEST_P(Calls, OfV32WithoutTheirEndsAreStillCalls) {
  Parsed all = dsml_output(
      "<Dfunction_calls>\n<Dinvoke name=\"f\">\n<Dinvoke name=\"g\">\n"
      "<Dparameter name=\"a\" string=\"true\">x</Dparameter>\n</Dfunction_calls>");
  EXPECT_EQ(all.calls[0], Call("f", "{}"));
  EXPECT_EQ(all.calls[1], Call("g", R"({"a": "x"})"));
}

TEST_P(Calls, InAThoughtEndIt) {
  Parsed all = named_output("I will" + block(named("f", "{}")), true);
  EXPECT_EQ(all.reasoning, "I will");
  EXPECT_EQ(all.calls[0], Call("f", "{}"));
  all = dsml_output(
      "I will\n\n<Dfunction_calls>\n<Dinvoke name=\"f\">\n</Dinvoke>\n</Dfunction_calls>", true);
  EXPECT_EQ(all.reasoning, "I will");
  EXPECT_EQ(all.calls[0], Call("f", "{}"));
}

TEST_P(Calls, ThatAreMalformedBecomeContent) {
  Parsed all =
      typed_output(block(std::string(kCallBegin) + "what is this" + std::string(kCallEnd)));
  EXPECT_EQ(all.content, "what is this");
  all = named_output(block(named("f", "no json")));
  EXPECT_EQ(all.content, "f no json");
  all = named_output(block(named("", "{}") + named("g", "{}")));
  EXPECT_EQ(all.content, " {}");
  EXPECT_EQ(all.calls[0], Call("g", "{}"));
  all = dsml_output("<Dfunction_calls>\nwhat <b> is this\n</Dfunction_calls>");
  EXPECT_EQ(all.content, "\nwhat <b> is this");
}

TEST_P(Calls, ThatAreCutOffKeepWhatCame) {
  std::string whole = block(named("f", R"({"a": 1)"));
  Parsed all = named_output(whole.substr(0, whole.find(kCallEnd)));
  EXPECT_EQ(all.calls[0], Call("f", R"({"a": 1)"));
  all = named_output(std::string(kCallsBegin) + std::string(kCallBegin) + "get_w");
  EXPECT_EQ(all.content, "get_w");
  all = dsml_output(
      "<Dfunction_calls>\n<Dinvoke name=\"f\">\n<Dparameter name=\"a\" string=\"true\">x");
  EXPECT_EQ(all.calls[0], Call("f", R"({"a": "x)"));
}

TEST_P(Calls, TextAroundThemIsContent) {
  Parsed all = named_output("a < b" + block(named("f", "{}")) + "after");
  EXPECT_EQ(all.content, "a < bafter");
  all = dsml_output("a <\n\nb <D c\n\n");
  EXPECT_EQ(all.content, "a <\n\nb < c\n\n");
  EXPECT_TRUE(all.calls.empty());
}

TEST_P(Calls, WithoutToolsInTheRequestNothingIsACall) {
  Parsed all = parse(tokenizer_, "deepseek-v3.1", "a</think>b", true, /*tools=*/false);
  EXPECT_EQ(all.reasoning, "a");
  EXPECT_EQ(all.content, "b");
  all = parse(tokenizer_, "deepseek-v3.1", "x" + block(named("f", "{}")), false, /*tools=*/false);
  EXPECT_TRUE(all.calls.empty());
}

INSTANTIATE_TEST_SUITE_P(Markers, Calls, testing::Values(true, false),
                         [](const auto& param) { return param.param ? "AreTokens" : "AreText"; });

TEST(ChatParser, MarkersOfThePromptAreDroppedAlsoWhereTheyAreNotSpecial) {
  Tokenizer tokenizer = byte_tokenizer(true);
  std::string output = "a" + std::string(kUser) + "b" + std::string(kSeparator) + std::string(kEos);
  EXPECT_EQ(parse(tokenizer, "deepseek-v3", output, false, false).content, "ab");
}

TEST(ChatParser, WhatOrdinaryTokensSpellIsTextWhereTheMarkerIsAToken) {
  Tokenizer tokenizer = byte_tokenizer(true);
  Result<ChatTemplate> chat = ChatTemplate::by_name(tokenizer, "deepseek-v3.1");
  ASSERT_TRUE(chat.has_value());
  auto parser = chat->output_parser(tokenizer, false, true);
  std::string seen;
  for (std::int32_t id : tokenizer.encode(kCallsBegin, SpecialTokens::kTreatAsText)) {
    seen += parser->push(id).content;
  }
  EXPECT_EQ(seen + parser->finish().content, kCallsBegin);
}

TEST(ChatParser, ATemplateWithoutAThoughtLeavesItsMarkersInTheText) {
  Tokenizer tokenizer =
      TokenizerJson().all_bytes().added(std::string(kBos)).added(std::string(kEos)).build();
  EXPECT_EQ(parse(tokenizer, "deepseek-v2", "a <think> b</think>").content, "a <think> b</think>");
}

TEST(ChatParser, CountsTheTokensOfTheThought) {
  Tokenizer tokenizer = byte_tokenizer(true);
  auto parser =
      ChatTemplate::by_name(tokenizer, "deepseek-r1")->output_parser(tokenizer, true, true);
  for (std::int32_t id : tokenizer.encode("12</think>345", SpecialTokens::kAllow)) parser->push(id);
  EXPECT_EQ(parser->reasoning_tokens(), 3);
  EXPECT_FALSE(parser->in_reasoning());
}

TEST(ChatParser, ArgumentsAreGivenAsTheyCome) {
  Tokenizer tokenizer = byte_tokenizer(true);
  auto parser =
      ChatTemplate::by_name(tokenizer, "deepseek-v3.1")->output_parser(tokenizer, false, true);
  std::string seen;
  for (std::int32_t id : tokenizer.encode(std::string(kCallsBegin) + std::string(kCallBegin) + "f" +
                                              std::string(kSeparator) + "{\"a\"",
                                          SpecialTokens::kAllow)) {
    for (const ToolCallPiece& piece : parser->push(id).tool_calls) seen += piece.arguments;
  }
  EXPECT_EQ(seen, "{\"a\"");
}

}  // namespace
}  // namespace dsm::text
