// Wrong tokenizer files, and output cut in every possible way.
#include <gtest/gtest.h>

#include "tests/fuzz/mutate.h"
#include "worker/text/chat_markers.h"
#include "worker/text/chat_template.h"
#include "worker/text/stop_checker.h"
#include "worker/text/test_tokenizer.h"
#include "worker/text/utf8.h"

namespace dsm::text {
namespace {

using fuzz::mutate;
using fuzz::Random;

constexpr std::string_view kLetters[] = {
    "a", "b", "<", ">", "/", "think", "<think>", "</think>", "</", "中", "\xF0\x9F\x98\x80", " "};

std::string some_text(Random& random, std::size_t parts) {
  std::string text;
  for (std::size_t i = random.below(parts + 1); i > 0; --i) text += random.pick(kLetters);
  return text;
}

std::string some_file(const char* regex) {
  TokenizerJson file;
  file.merge("a", "b")
      .merge("ab", "ab")
      .merge("\xC4\xA0", "a")
      .added("<x>")
      .added("<y>", {{"rstrip", true}});
  file.json()["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", regex}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "Digits"}, {"individual_digits", true}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}}}};
  return file.text();
}

TEST(TokenizerFuzz, ABrokenFileIsRefusedOrGivesATokenizerThatWorks) {
  std::string good = some_file("[^\\r\\n\\p{L}]?[\\p{L}\\p{M}]+|\\s+(?!\\S)|\\p{N}{1,3}");
  std::string config =
      R"({"bos_token": "<x>", "eos_token": {"content": "<y>"}, "add_bos_token": true, "chat_template": "x"})";
  ASSERT_TRUE(Tokenizer::parse(good, config).has_value());
  Random random(1);
  int accepted = 0;
  for (int i = 0; i < 4000; ++i) {
    bool break_config = random.chance(20);
    Result<Tokenizer> tokenizer = break_config ? Tokenizer::parse(good, mutate(config, random))
                                               : Tokenizer::parse(mutate(good, random), config);
    if (!tokenizer) {
      EXPECT_EQ(tokenizer.error().kind, ErrorKind::kInvalid);
      EXPECT_FALSE(tokenizer.error().message.empty());
      continue;
    }
    ++accepted;
    std::string text = some_text(random, 12) + "1234 ab<x> \n";
    for (std::int32_t id : tokenizer->encode_prompt(text)) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, tokenizer->vocab_size());
    }
    std::vector<std::int32_t> ids = tokenizer->encode(text, SpecialTokens::kTreatAsText);
    EXPECT_TRUE(is_valid_utf8(tokenizer->decode(ids, false)));
    EXPECT_LE(tokenizer->least_tokens(text), ids.size());
  }
  EXPECT_GT(accepted,
            100);  // else the mutations are too coarse to reach the code behind the parser
}

TEST(TokenizerFuzz, ABrokenPatternIsRefusedOrMatchesInBounds) {
  Random random(2);
  static constexpr std::string_view kParts[] = {
      "\\p{L}", "\\s", "[", "]",  "^",   "(", ")",    "(?!", "|",   "*",   "+", "?",
      "{1,3}",  "\\",  "a", "中", "\\S", "$", "(?i:", "-",   "\\x", "\\u", ".", "(?<="};
  int accepted = 0;
  for (int i = 0; i < 6000; ++i) {
    std::string regex;
    for (std::size_t n = 1 + random.below(6); n > 0; --n) regex += random.pick(kParts);
    Result<Tokenizer> tokenizer = Tokenizer::parse(some_file(regex.c_str()), "");
    if (!tokenizer) continue;
    ++accepted;
    std::string text = some_text(random, 20);
    // Nothing is lost, wherever the pattern cuts.
    std::string lower;
    for (std::int32_t id : tokenizer->encode(text, SpecialTokens::kTreatAsText))
      lower += tokenizer->piece(id);
    std::string expected;  // the small vocabulary has no tokens for bytes above ASCII
    for (char c : text) {
      if (static_cast<unsigned char>(c) < 0x80) expected += c;
    }
    EXPECT_EQ(lower, expected) << regex;
  }
  EXPECT_GT(accepted, 500);
}

TEST(StopCheckerFuzz, HowTheTextIsCutDoesNotMatter) {
  Random random(3);
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::string> stops;
    for (std::size_t n = random.below(4); n > 0; --n) stops.push_back(some_text(random, 3));
    bool include = random.chance(50);
    std::string text = some_text(random, 16);

    // By definition: the stop string that ends first; of those that end together, the longest.
    std::string expected = text;
    bool found = false;
    for (std::size_t end = 0; end <= text.size() && !found; ++end) {
      std::size_t longest = 0;
      for (const std::string& stop : stops) {
        if (!stop.empty() && std::string_view(text).substr(0, end).ends_with(stop))
          longest = std::max(longest, stop.size());
      }
      found = longest > 0;
      if (found) expected = text.substr(0, include ? end : end - longest);
    }

    StopChecker checker(stops, include);
    std::string seen;
    bool stopped = false;
    for (const std::string& piece : fuzz::pieces(text, random, 9)) {
      StopChecker::Output output = checker.push(piece);
      seen += output.text;
      stopped = output.stopped;
      if (stopped) break;
    }
    if (!stopped) seen += checker.flush();
    ASSERT_EQ(seen, expected) << text;
    ASSERT_EQ(stopped, found) << text;
  }
}

TEST(ReasoningFuzz, MarkersInTextNeverLeakAndNothingElseIsLost) {
  // Here the markers are ordinary text, so the parser must find them across tokens.
  TokenizerJson file;
  file.merge("<", "/")
      .merge("t", "h")
      .merge("th", "i")
      .merge("thi", "n")
      .merge("k", ">")
      .merge("a", "<");
  for (std::string_view marker :
       {markers::kBos, markers::kEos, markers::kUser, markers::kAssistant}) {
    file.added(std::string(marker));
  }
  Tokenizer tokenizer = file.build();
  const Result<ChatTemplate> chat = ChatTemplate::by_name(tokenizer, "deepseek-v3.1");
  ASSERT_TRUE(chat.has_value()) << chat.error().message;
  Random random(4);
  for (int i = 0; i < 20000; ++i) {
    std::string text = some_text(random, 10);
    std::erase_if(text, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
    bool reasoning = random.chance(50);
    std::string expected[2];  // content, reasoning
    bool side = reasoning;
    for (std::string_view rest = text; !rest.empty();) {
      if (rest.starts_with("<think>") || rest.starts_with("</think>")) {
        side = rest.starts_with("<think>");
        rest.remove_prefix(side ? 7 : 8);
      } else {
        expected[side] += rest.front();
        rest.remove_prefix(1);
      }
    }
    const auto parser = chat->output_parser(tokenizer, reasoning, /*tools=*/false);
    std::string seen[2];
    auto add = [&](const OutputParser::Delta& delta) {
      seen[0] += delta.content;
      seen[1] += delta.reasoning;
    };
    for (std::int32_t id : tokenizer.encode(text, SpecialTokens::kTreatAsText))
      add(parser->push(id));
    add(parser->finish());
    ASSERT_EQ(seen[0], expected[0]) << text;
    ASSERT_EQ(seen[1], expected[1]) << text;
  }
}

TEST(Utf8Fuzz, PiecesGiveTheSameValidTextAsTheWhole) {
  Random random(5);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = mutate(some_text(random, 8), random);
    Utf8Assembler assembler;
    std::string out;
    for (const std::string& piece : fuzz::pieces(bytes, random, 5)) assembler.push(piece, out);
    assembler.flush(out);
    ASSERT_TRUE(is_valid_utf8(out));
    ASSERT_EQ(out, to_valid_utf8(bytes));
    if (is_valid_utf8(bytes)) {
      ASSERT_EQ(out, bytes);
    }
  }
}

}  // namespace
}  // namespace dsm::text
