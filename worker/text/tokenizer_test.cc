#include "worker/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "worker/text/nfc.h"
#include "worker/text/pattern.h"
#include "worker/text/stream_decoder.h"
#include "worker/text/test_tokenizer.h"

namespace dsm::text {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> cut(const TokenizerJson& file, std::string_view text,
                             SpecialTokens special = SpecialTokens::kAllow) {
  Tokenizer tokenizer = file.build();
  return pieces(tokenizer, tokenizer.encode(text, special));
}

json split(const char* regex, const char* behavior, bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", behavior},
          {"invert", invert}};
}

TokenizerJson with_rules(std::initializer_list<json> rules) {
  TokenizerJson file;
  json list = json::array();
  for (const json& rule : rules) list.push_back(rule);
  list.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  file.json()["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", list}};
  return file;
}

std::string refusal(const std::string& file, const std::string& config = "") {
  Result<Tokenizer> tokenizer = Tokenizer::parse(file, config);
  return tokenizer ? "accepted" : tokenizer.error().message;
}

TEST(Tokenizer, TheLowestRankIsMergedFirstAndTheLeftmostOfEquals) {
  TokenizerJson file;
  file.merge("b", "c").merge("a", "b").merge("a", "a");
  EXPECT_THAT(cut(file, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(cut(file, "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(cut(file, "aaaab"), ElementsAre("aa", "a", "ab"));
}

TEST(Tokenizer, AMergedTokenIsMergedFurther) {
  TokenizerJson file;
  file.merge("a", "b").merge("ab", "c").merge("abc", "abc");
  EXPECT_THAT(cut(file, "abcabc"), ElementsAre("abcabc"));
  EXPECT_THAT(cut(file, "abcab"), ElementsAre("abc", "ab"));
}

TEST(Tokenizer, MergesInTheOlderFormAreTheSame) {
  TokenizerJson file;
  file.merge("a", "b");
  file.json()["model"]["merges"] = {"a b"};
  EXPECT_THAT(cut(file, "ab"), ElementsAre("ab"));
}

TEST(Tokenizer, IgnoreMergesTakesAWholePieceThatIsAToken) {
  TokenizerJson file;
  file.vocab("xyz").merge("x", "y");
  EXPECT_THAT(cut(file, "xyz"), ElementsAre("xy", "z"));
  file.json()["model"]["ignore_merges"] = true;
  EXPECT_THAT(cut(file, "xyz"), ElementsAre("xyz"));
  EXPECT_THAT(cut(file, "xyzx"), ElementsAre("xy", "z", "x"));
}

TEST(Tokenizer, NoMergeCrossesAPiece) {
  TokenizerJson file = with_rules({split("b+", "Isolated")});
  file.merge("a", "b").merge("b", "b");
  EXPECT_THAT(cut(file, "abba"), ElementsAre("a", "bb", "a"));
}

TEST(Tokenizer, EveryRuleSeesThePieceAlone) {
  // The lookahead of the second rule sees the end of the piece, not the letter behind it.
  TokenizerJson file = with_rules({split("x", "Isolated"), split("a+(?!.)", "Isolated")});
  file.merge("a", "a");
  EXPECT_THAT(cut(file, "aax"), ElementsAre("aa", "x"));
}

TEST(Tokenizer, EachSplitBehaviourPutsTheMatchWhereItSays) {
  auto behave = [](const char* behavior, bool invert = false) {
    // Every pair may merge, so the tokens are the pieces.
    TokenizerJson file = with_rules({split("-", behavior, invert)});
    file.merge("a", "-").merge("-", "b").merge("-", "-").merge("a-", "-").merge("--", "b").merge(
        "a-", "b");
    file.merge("a--", "b").merge("a", "--").merge("-", "-b");
    return cut(file, "a--b");
  };
  EXPECT_THAT(behave("Removed"), ElementsAre("a", "b"));
  EXPECT_THAT(behave("Isolated"), ElementsAre("a", "-", "-", "b"));
  EXPECT_THAT(behave("MergedWithPrevious"), ElementsAre("a-", "-", "b"));
  EXPECT_THAT(behave("MergedWithNext"), ElementsAre("a", "-", "-b"));
  EXPECT_THAT(behave("Contiguous"), ElementsAre("a", "--", "b"));
  EXPECT_THAT(behave("Removed", /*invert=*/true), ElementsAre("-", "-"));
}

TEST(Tokenizer, DigitsAreIsolatedOneByOneOrAsARun) {
  for (bool individual : {true, false}) {
    TokenizerJson file = with_rules({json{{"type", "Digits"}, {"individual_digits", individual}}});
    file.merge("1", "2").merge("a", "1");
    std::vector<std::string> tokens = cut(file, "a12");
    if (individual) {
      EXPECT_THAT(tokens, ElementsAre("a", "1", "2"));
    } else {
      EXPECT_THAT(tokens, ElementsAre("a", "12"));
    }
  }
}

TEST(Tokenizer, ByteLevelsOwnRuleAndPrefixSpace) {
  TokenizerJson file;
  file.json()["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  file.merge("\xC4\xA0", "a").merge("\xC4\xA0", "\xC4\xA0");
  EXPECT_THAT(cut(file, "a  a"), ElementsAre(" a", " ", " a"));
}

TEST(Tokenizer, AddedTokensAreFoundLeftmostAndLongest) {
  TokenizerJson file;
  file.added("<a>").added("<a>b").added("a>b>");
  EXPECT_THAT(cut(file, "x<a>b>"), ElementsAre("x", "<a>b", ">"));
  EXPECT_THAT(cut(file, "<a>c"), ElementsAre("<a>", "c"));
}

TEST(Tokenizer, AddedTokensInTextStayTextWhenAskedFor) {
  TokenizerJson file;
  file.added("<a>").added("<b>", {{"special", false}});
  EXPECT_THAT(cut(file, "<a><b>", SpecialTokens::kAllow), ElementsAre("<a>", "<b>"));
  EXPECT_THAT(cut(file, "<a><b>", SpecialTokens::kTreatAsText),
              ElementsAre("<", "a", ">", "<", "b", ">"));
}

TEST(Tokenizer, StripFlagsTakeTheSpacesBesideAToken) {
  TokenizerJson file;
  file.added("<l>", {{"lstrip", true}}).added("<r>", {{"rstrip", true}});
  EXPECT_THAT(cut(file, "a <l> b"), ElementsAre("a", "<l>", " ", "b"));
  EXPECT_THAT(cut(file,
                  "a <r> \xE3\x80\x80"
                  "b"),
              ElementsAre("a", " ", "<r>", "b"));
  EXPECT_THAT(cut(file, "<r> <l>"), ElementsAre("<r>", "<l>"));
}

TEST(Tokenizer, APromptGetsBosOnceAsThePostProcessorSays) {
  TokenizerJson file;
  file.added("<bos>");
  int bos = file.json()["added_tokens"][0]["id"];
  file.json()["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "<bos>"}}}}, {{"Sequence", {{"id", "A"}}}}}},
      {"special_tokens", {{"<bos>", {{"ids", {bos}}}}}}};
  Tokenizer tokenizer = file.build();
  EXPECT_THAT(pieces(tokenizer, tokenizer.encode_prompt("a")), ElementsAre("<bos>", "a"));
  EXPECT_THAT(pieces(tokenizer, tokenizer.encode_prompt("<bos>a")), ElementsAre("<bos>", "a"));
  EXPECT_THAT(pieces(tokenizer, tokenizer.encode_prompt("")), ElementsAre("<bos>"));
}

TEST(Tokenizer, TheConfigNamesBosAndEosAsTextOrObject) {
  TokenizerJson file;
  file.added("<bos>").added("<eos>");
  Result<Tokenizer> tokenizer = Tokenizer::parse(
      file.text(),
      R"({"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, "add_bos_token": true})");
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->bos(), tokenizer->special("<bos>"));
  EXPECT_EQ(tokenizer->eos(), tokenizer->special("<eos>"));
  EXPECT_THAT(pieces(*tokenizer, tokenizer->encode_prompt("a")), ElementsAre("<bos>", "a"));
}

TEST(Tokenizer, WhatIsNotImplementedIsRefusedByName) {
  auto with = [](const char* pointer, const json& value) {
    TokenizerJson file;
    file.json()[json::json_pointer(pointer)] = value;
    return refusal(file.text());
  };
  EXPECT_THAT(with("/normalizer", {{"type", "NFKC"}}), HasSubstr("normalizer 'NFKC'"));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Metaspace"}}),
              HasSubstr("pre-tokenizer 'Metaspace'"));
  EXPECT_THAT(with("/pre_tokenizer", nullptr), HasSubstr("ByteLevel"));
  EXPECT_THAT(with("/decoder", {{"type", "WordPiece"}}), HasSubstr("decoder 'WordPiece'"));
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("model 'Unigram'"));
  EXPECT_THAT(with("/model/byte_fallback", true), HasSubstr("byte_fallback"));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(with("/post_processor", {{"type", "BertProcessing"}}),
              HasSubstr("post-processor 'BertProcessing'"));
  EXPECT_THAT(with("/model/merges", json::array({json::array({"a", "b"})})),
              HasSubstr("merge 0 names a token"));
  EXPECT_THAT(with("/model/vocab/a", -1), HasSubstr("out of bounds"));
  EXPECT_THAT(with("/model/vocab/a", 1), HasSubstr("two tokens have the id 1"));
  EXPECT_THAT(refusal("{"), HasSubstr("parse error"));
  EXPECT_THAT(refusal(TokenizerJson().text(), R"({"eos_token": "</s>"})"),
              HasSubstr("eos_token '</s>'"));
  EXPECT_THAT(refusal(TokenizerJson().added("<w>", {{"single_word", true}}).text()),
              HasSubstr("single_word"));
}

TEST(Tokenizer, AFileThatIsNotThereIsNotFound) {
  Result<Tokenizer> tokenizer = Tokenizer::load("models/no-such-model/tokenizer.json");
  ASSERT_FALSE(tokenizer.has_value());
  EXPECT_EQ(tokenizer.error().kind, ErrorKind::kNotFound);
}

TEST(Pattern, WhatMeansSomethingElseInTheOtherSyntaxIsRefusedByName) {
  auto message = [](std::string_view pattern) {
    Result<std::string> translated = translate_pattern(pattern);
    return translated ? "accepted" : translated.error().message;
  };
  EXPECT_THAT(message("\\w+"), HasSubstr("'\\w'"));
  EXPECT_THAT(message("\\p{Han}"), HasSubstr("'\\p{Han}'"));
  EXPECT_THAT(message("[a&&b]"), HasSubstr("intersection"));
  EXPECT_THAT(message("[a[b]]"), HasSubstr("class inside a class"));
  EXPECT_THAT(message("[^\\S]"), HasSubstr("negated set"));
  EXPECT_THAT(message("a{1,3}+"), HasSubstr("repeated {n,m}"));
  EXPECT_THAT(message("(?<name>a)"), HasSubstr("a group that begins with '(?<'"));
  EXPECT_THAT(message("[a"), HasSubstr("does not end"));
  EXPECT_THAT(message("a\\"), HasSubstr("backslash"));
  EXPECT_EQ(message("(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+(?!\\S)|\\s+"),
            "accepted");
}

TEST(Pattern, CharactersOfNewerUnicodeVersionsAreInTheirClasses) {
  auto matches = [](std::string_view pattern, std::string_view text) {
    Result<Pattern> compiled = Pattern::compile(pattern);
    return compiled && Pattern::Matcher(*compiled).find(text, 0).has_value();
  };
  EXPECT_TRUE(matches("\\p{L}", "\xF0\xB1\x8D\x90"));  // U+31350, assigned in Unicode 15
  EXPECT_FALSE(matches("\\P{L}", "\xF0\xB1\x8D\x90"));
  EXPECT_FALSE(matches("[^\\s\\p{L}]", "\xF0\xB1\x8D\x90"));
  EXPECT_FALSE(matches("\\s", "\xE1\xA0\x8E"));  // U+180E is no space any more
  EXPECT_TRUE(matches("\\S", "\xE1\xA0\x8E"));
  EXPECT_TRUE(matches("\\s", "\xC2\x85"));
}

class DefaultModel : public testing::Test {
 protected:
  std::vector<std::string> cut(std::string_view text) const {
    return pieces(tokenizer_, tokenizer_.encode(text, SpecialTokens::kTreatAsText));
  }
  Tokenizer tokenizer_ = default_tokenizer();
};

TEST_F(DefaultModel, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_.vocab_size(), 1536);
  EXPECT_EQ(tokenizer_.bos(), 0);
  EXPECT_EQ(tokenizer_.eos(), 1);
  EXPECT_EQ(tokenizer_.special("<think>"), 5);
  EXPECT_EQ(tokenizer_.special("no such token"), std::nullopt);
  EXPECT_TRUE(tokenizer_.is_special(5));
  EXPECT_FALSE(tokenizer_.is_special(100));
  EXPECT_FALSE(tokenizer_.is_special(-1));
  EXPECT_FALSE(tokenizer_.is_special(1536));
  EXPECT_THAT(tokenizer_.chat_template(), HasSubstr("add_generation_prompt"));
}

TEST_F(DefaultModel, DigitsAreNeverMerged) {
  EXPECT_THAT(cut("12+345"), ElementsAre("1", "2", "+", "3", "4", "5"));
}

TEST_F(DefaultModel, ARawPromptStartsWithBosOnce) {
  EXPECT_EQ(tokenizer_.encode_prompt("a").front(), 0);
  EXPECT_EQ(tokenizer_.encode_prompt("<｜begin▁of▁sentence｜>a"), tokenizer_.encode_prompt("a"));
}

TEST_F(DefaultModel, EncodingAndDecodingGivesTheSameTextBack) {
  for (const char* text :
       {"", "The capital of France?", "计算 71+51 等于多少？", "  \n\n\t x\r\n",
        "e\xCC\x81 \xF0\x9F\x98\x80\xF0\x9F\x91\x8D", "<think>", "\xF0\xB1\x8D\x90\xE1\xA0\x8E"}) {
    for (SpecialTokens special : {SpecialTokens::kAllow, SpecialTokens::kTreatAsText}) {
      EXPECT_EQ(tokenizer_.decode(tokenizer_.encode(text, special), /*skip_special=*/false), text);
    }
  }
}

TEST_F(DefaultModel, SpecialTokensAreLeftOutOfTextForClients) {
  std::vector<std::int32_t> ids = tokenizer_.encode("a<think>b", SpecialTokens::kAllow);
  EXPECT_EQ(tokenizer_.decode(ids, /*skip_special=*/true), "ab");
}

TEST_F(DefaultModel, IdsWithoutATokenGiveNothing) {
  std::vector<std::int32_t> ids = {-1, 1536, 1 << 30};
  EXPECT_EQ(tokenizer_.decode(ids, /*skip_special=*/false), "");
}

TEST_F(DefaultModel, WrongBytesCountAsReplacementCharacters) {
  EXPECT_EQ(tokenizer_.encode("a\xFF\xE4\xB8z", SpecialTokens::kAllow),
            tokenizer_.encode("a\xEF\xBF\xBD\xEF\xBF\xBDz", SpecialTokens::kAllow));
}

TEST_F(DefaultModel, RepeatedWordsOfALongTextAreTheSameTokens) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += " the capital of France 法国";
  std::vector<std::int32_t> all = tokenizer_.encode(text, SpecialTokens::kAllow);
  std::vector<std::int32_t> one =
      tokenizer_.encode(" the capital of France 法国", SpecialTokens::kAllow);
  ASSERT_EQ(all.size(), one.size() * 500);
  EXPECT_TRUE(
      std::equal(one.begin(), one.end(), all.end() - static_cast<std::ptrdiff_t>(one.size())));
}

TEST_F(DefaultModel, AMegabyteWithoutAnyBorderIsEncoded) {
  for (const char* unit : {"a", " ", "中", "0", "-", "the"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    std::vector<std::int32_t> ids = tokenizer_.encode(text, SpecialTokens::kAllow);
    EXPECT_GE(ids.size(), tokenizer_.least_tokens(text));
    EXPECT_EQ(tokenizer_.decode(ids, false).size(), text.size());
  }
}

TEST_F(DefaultModel, OneTokenizerServesManyThreads) {
  std::string text = "Sort 3, 1, 2. 从小到大排列";
  std::vector<std::int32_t> expected = tokenizer_.encode(text, SpecialTokens::kAllow);
  std::vector<int> wrong(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 50; ++i)
          wrong[t] += tokenizer_.encode(text, SpecialTokens::kAllow) != expected;
      });
    }
  }
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST_F(DefaultModel, AStreamNeverCutsACodePoint) {
  std::string text = "中 \xF0\x9F\x98\x80 é";
  std::vector<std::int32_t> ids = tokenizer_.encode(text, SpecialTokens::kAllow);
  StreamDecoder decoder(tokenizer_);
  std::string all;
  for (std::int32_t id : ids) {
    std::string part = decoder.push(id);
    EXPECT_TRUE(is_valid_utf8(part));
    all += part;
  }
  EXPECT_EQ(all + decoder.flush(), text);
}

TEST_F(DefaultModel, AStreamThatEndsInsideACodePointEndsWithAReplacement) {
  std::vector<std::int32_t> ids = tokenizer_.encode("\xF0\x9F\x98\x80", SpecialTokens::kAllow);
  ASSERT_GT(ids.size(), 1U);  // the emoji is no token of its own
  ids.pop_back();
  StreamDecoder decoder(tokenizer_);
  std::string all;
  for (std::int32_t id : ids) all += decoder.push(id);
  EXPECT_EQ(all, "");
  EXPECT_EQ(decoder.flush(), kReplacement);
  EXPECT_EQ(decoder.flush(), "");
}

TEST(Nfc, PutsLettersTogetherAsUnicodeSays) {
  EXPECT_EQ(to_nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(to_nfc("a\u0301\u0323"), "\u1EA1\u0301");  // the mark below comes first
  EXPECT_EQ(to_nfc("a\u0323\u0301b"), "\u1EA1\u0301b");
  EXPECT_EQ(to_nfc("\u1112\u1161\u11AB"), "\uD55C");        // Hangul
  EXPECT_EQ(to_nfc("\u1112\u1161\u11A7"), "\uD558\u11A7");  // one before the first tail
  EXPECT_EQ(to_nfc("\u212B\u1FEF"), "\u00C5`");             // twins
  EXPECT_EQ(to_nfc("\u0915\u093C"), "\u0915\u093C");  // left apart, as the standard excludes it
  EXPECT_EQ(to_nfc("\u0301e\u0301\u0301"), "\u0301\u00E9\u0301");
  EXPECT_FALSE(is_surely_nfc("e\u0301"));
  EXPECT_TRUE(is_surely_nfc("plain, caf\u00E9, 中文"));
}

TEST(Tokenizer, ComposesTextWhereTheFileAsksForIt) {
  TokenizerJson file;
  file.all_bytes().added("<x>", {{"normalized", true}});
  file.json()["normalizer"] = {{"type", "NFC"}};
  Tokenizer tokenizer = file.build();
  for (SpecialTokens special : {SpecialTokens::kAllow, SpecialTokens::kTreatAsText}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("e\u0301", special), false), "\u00E9");
  }
  EXPECT_EQ(tokenizer.encode("e\u0301<x>", SpecialTokens::kAllow).back(),
            *tokenizer.special("<x>"));
  const std::string marks = "e\u0301\u1FEF";
  EXPECT_LE(tokenizer.least_tokens(marks), tokenizer.encode(marks, SpecialTokens::kAllow).size());
}

}  // namespace
}  // namespace dsm::text
