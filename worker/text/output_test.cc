// What is done with a model's output: UTF-8 in pieces, stop strings, reasoning.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/text/chat_markers.h"
#include "worker/text/chat_template.h"
#include "worker/text/stop_checker.h"
#include "worker/text/test_tokenizer.h"
#include "worker/text/utf8.h"

namespace dsm::text {
namespace {

TEST(Utf8, EachMaximalWrongPartBecomesOneReplacement) {
  EXPECT_EQ(to_valid_utf8("a\x80z"), "a\uFFFDz");
  EXPECT_EQ(to_valid_utf8("\xE4\xB8"), "\uFFFD");  // cut short
  EXPECT_EQ(to_valid_utf8("\xE4\xB8z"), "\uFFFDz");
  EXPECT_EQ(to_valid_utf8("\xC0\xAF"), "\uFFFD\uFFFD");                      // overlong
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");            // a surrogate
  EXPECT_EQ(to_valid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");  // above U+10FFFF
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x98\xF0\x9F\x98\x80"), "\uFFFD\U0001F600");
}

TEST(Utf8, PiecesGiveTheSameAsTheWhole) {
  std::string bytes = "é\xF0\x9F\x98\x80\xE4\xB8\xE4\xB8\xAD\xFFz\xF0\x9F";
  for (std::size_t size = 1; size <= bytes.size(); ++size) {
    Utf8Assembler assembler;
    std::string out;
    for (std::size_t at = 0; at < bytes.size(); at += size) {
      assembler.push(std::string_view(bytes).substr(at, size), out);
      EXPECT_TRUE(is_valid_utf8(out));
    }
    assembler.flush(out);
    EXPECT_EQ(out, to_valid_utf8(bytes)) << "in pieces of " << size;
    EXPECT_FALSE(assembler.holds_back());
  }
}

// What a client gets when the text arrives in these chunks.
std::string through(StopChecker checker, const std::vector<std::string>& chunks) {
  std::string out;
  for (const std::string& chunk : chunks) {
    StopChecker::Output part = checker.push(chunk);
    out += part.text;
    if (part.stopped) return out + "|stop";
  }
  return out + checker.flush();
}

TEST(StopChecker, TextBehindAStopStringIsNotSeen) {
  EXPECT_EQ(through(StopChecker({"END"}), {"abcENDdef"}), "abc|stop");
  EXPECT_EQ(through(StopChecker({"END"}, /*include_stop=*/true), {"abcENDdef"}), "abcEND|stop");
}

TEST(StopChecker, AStopStringIsFoundAcrossChunks) {
  EXPECT_EQ(through(StopChecker({"END"}), {"abcE", "N", "Ddef"}), "abc|stop");
}

TEST(StopChecker, ABeginningIsHeldBackUntilItIsKnown) {
  StopChecker checker({"END"});
  EXPECT_EQ(checker.push("abcEN").text, "abc");
  EXPECT_EQ(checker.push("E").text, "EN");  // the last E may begin again
  EXPECT_EQ(checker.push("x").text, "Ex");
}

TEST(StopChecker, WhatWasHeldBackComesAtTheEnd) {
  EXPECT_EQ(through(StopChecker({"END"}), {"abcEN"}), "abcEN");
}

TEST(StopChecker, AStopStringThatOverlapsItselfIsFound) {
  EXPECT_EQ(through(StopChecker({"aab"}), {"a", "a", "a", "b"}), "a|stop");
}

TEST(StopChecker, TheStopStringThatIsCompleteFirstWinsHoweverTheTextIsCut) {
  EXPECT_EQ(through(StopChecker({"abc", "b"}), {"xabc"}), "xa|stop");
  EXPECT_EQ(through(StopChecker({"abc", "b"}), {"x", "a", "b", "c"}), "xa|stop");
  EXPECT_EQ(through(StopChecker({"c", "abc"}), {"xabc"}), "x|stop");
}

TEST(StopChecker, CharactersOfSeveralBytesStayWhole) {
  StopChecker checker({"。终"});
  EXPECT_EQ(checker.push("好。").text, "好");
  EXPECT_EQ(checker.push("的").text, "。的");
  EXPECT_EQ(through(StopChecker({"。终"}), {"好。", "终"}), "好|stop");
}

TEST(StopChecker, NothingComesAfterTheStop) {
  StopChecker checker({"."});
  EXPECT_EQ(checker.push("a.b").text, "a");
  EXPECT_EQ(checker.matched(), ".");
  EXPECT_TRUE(checker.push("c").stopped);
  EXPECT_EQ(checker.push("c").text, "");
  EXPECT_EQ(checker.flush(), "");
}

TEST(StopChecker, EmptyStopStringsAreIgnored) {
  EXPECT_EQ(through(StopChecker({"", ""}), {"abc"}), "abc");
}

struct Sides {
  std::string reasoning;
  std::string content;
};

std::unique_ptr<OutputParser> parser_of(const Tokenizer& tokenizer, bool starts_in_reasoning) {
  Result<ChatTemplate> chat = ChatTemplate::by_name(tokenizer, "deepseek-v3.1");
  EXPECT_TRUE(chat.has_value()) << chat.error().message;
  return chat->output_parser(tokenizer, starts_in_reasoning, /*tools=*/false);
}

Sides sides(const Tokenizer& tokenizer, bool starts_in_reasoning, std::string_view output,
            SpecialTokens special = SpecialTokens::kAllow) {
  const auto parser = parser_of(tokenizer, starts_in_reasoning);
  Sides all;
  auto add = [&](const OutputParser::Delta& delta) {
    EXPECT_TRUE(is_valid_utf8(delta.reasoning) && is_valid_utf8(delta.content));
    all.reasoning += delta.reasoning;
    all.content += delta.content;
  };
  for (std::int32_t id : tokenizer.encode(output, special)) add(parser->push(id));
  add(parser->finish());
  return all;
}

// The same behaviour is asked of both kinds of markers: tokens of their own, and text.
class Reasoning : public testing::TestWithParam<bool> {
 protected:
  static Tokenizer make(bool tokens) {
    if (tokens) return default_tokenizer();
    TokenizerJson file;
    for (std::string_view marker :
         {markers::kBos, markers::kEos, markers::kUser, markers::kAssistant}) {
      file.added(std::string(marker));
    }
    return file.build();
  }
  Sides parse(bool starts_in_reasoning, std::string_view output) {
    return sides(tokenizer_, starts_in_reasoning, output);
  }
  Tokenizer tokenizer_ = make(GetParam());
};

TEST_P(Reasoning, TheStateAtTheStartComesFromThePrompt) {
  Sides in = parse(true, "1+1=2</think>122");
  EXPECT_EQ(in.reasoning, "1+1=2");
  EXPECT_EQ(in.content, "122");
  Sides out = parse(false, "122");
  EXPECT_EQ(out.reasoning, "");
  EXPECT_EQ(out.content, "122");
}

TEST_P(Reasoning, AModelThatOpensTheThoughtItselfIsUnderstood) {
  Sides all = parse(false, "<think>a</think>b");
  EXPECT_EQ(all.reasoning, "a");
  EXPECT_EQ(all.content, "b");
}

TEST_P(Reasoning, WithoutMarkersEverythingStaysOnTheSideOfThePrompt) {
  EXPECT_EQ(parse(true, "abc").reasoning, "abc");
  EXPECT_EQ(parse(true, "abc").content, "");
  EXPECT_EQ(parse(false, "abc").content, "abc");
}

TEST_P(Reasoning, AMarkerThatChangesNothingIsDropped) {
  EXPECT_EQ(parse(true, "<think>a</think>b").reasoning, "a");
  EXPECT_EQ(parse(false, "</think>b").content, "b");
  EXPECT_EQ(parse(false, "a</think>b").content, "ab");
}

TEST_P(Reasoning, NoPartOfAMarkerLeaks) {
  Sides all = parse(true, "a<</think></thin</think>b<th");
  EXPECT_EQ(all.reasoning, "a<");
  EXPECT_EQ(all.content, "</thinb<th");
}

INSTANTIATE_TEST_SUITE_P(Markers, Reasoning, testing::Values(true, false),
                         [](const auto& param) { return param.param ? "AreTokens" : "AreText"; });

TEST(ReasoningOutput, AMarkerSpelledByOrdinaryTokensIsTextWhereTheMarkerIsAToken) {
  Sides all = sides(default_tokenizer(), true, "say </think> now", SpecialTokens::kTreatAsText);
  EXPECT_EQ(all.reasoning, "say </think> now");
  EXPECT_EQ(all.content, "");
}

TEST(ReasoningOutput, ACodePointThatAMarkerCutsShortStaysOnItsSide) {
  Tokenizer tokenizer = default_tokenizer();
  std::vector<std::int32_t> emoji = tokenizer.encode("\xF0\x9F\x98\x80", SpecialTokens::kAllow);
  ASSERT_GT(emoji.size(), 1U);
  const auto parser = parser_of(tokenizer, true);
  EXPECT_TRUE(parser->push(emoji.front()).empty());
  OutputParser::Delta delta = parser->push(tokenizer.special("</think>").value_or(-1));
  EXPECT_EQ(delta.reasoning, kReplacement);
  EXPECT_EQ(delta.content, "");
}

}  // namespace
}  // namespace dsm::text
