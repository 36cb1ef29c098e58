#include "worker/grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <thread>

#include "worker/grammar/test_grammar.h"
#include "worker/text/test_tokenizer.h"

namespace dsm::grammar {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

engine::TokenId marker(std::string_view name) {
  return tokenizer().special(name).value_or(-1);
}

// ---- kinds

TEST(Regex, MatchesAsAWhole) {
  const GrammarSpec spec = regex(R"([A-Z]{2}-\d{3}(/x)?)");
  EXPECT_TRUE(matches(spec, "AB-123"));
  EXPECT_TRUE(matches(spec, "AB-123/x"));
  EXPECT_FALSE(matches(spec, "AB-12"));
  EXPECT_FALSE(matches(spec, "AB-1234"));
  EXPECT_FALSE(matches(spec, "xAB-123"));
  EXPECT_TRUE(matches(regex("北京|é+\n"), "éé\n"));
}

TEST(Regex, WhatIsWrongIsSaid) {
  EXPECT_THAT(refusal(regex("(a")), HasSubstr("unclosed group"));
  EXPECT_THAT(refusal(regex("")), HasSubstr("empty"));
  EXPECT_THAT(refusal(regex(R"((a)\1)")), HasSubstr("backreference"));
  EXPECT_THAT(refusal(regex("(?=a)b")), HasSubstr("look"));
  EXPECT_THAT(refusal(regex("\xC3")), HasSubstr("UTF-8"));
}

TEST(Choice, IsOneOfTheTextsWithNothingAround) {
  const GrammarSpec spec = choice({"yes", "yes please", "no (\\d+|<b>) /#\n\x7F", "北京"});
  for (const std::string& text : spec.choices) EXPECT_TRUE(matches(spec, text)) << text;
  EXPECT_FALSE(matches(spec, "yes p"));
  EXPECT_FALSE(matches(spec, "no 17"));
  EXPECT_FALSE(matches(spec, "maybe"));
}

TEST(Choice, NeedsTexts) {
  EXPECT_THAT(refusal(choice({})), HasSubstr("give 1 to 4096 texts"));
  EXPECT_THAT(refusal(choice({"a", ""})), HasSubstr("empty"));
  EXPECT_THAT(refusal(choice(std::vector<std::string>(4097, "a"))), HasSubstr("4097"));
  EXPECT_NE(compile(choice(std::vector<std::string>(4096, "a"))), nullptr);
}

TEST(Lark, RulesTerminalsAndSchemas) {
  const GrammarSpec spec = lark(R"(
start: "<call>" NAME " " args  // a comment with %json {"not": 1}
NAME: /[a-z_]+/
args: %json {"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],
             "additionalProperties":false}
)");
  EXPECT_TRUE(matches(spec, R"(<call>get_x {"x": 17})"));
  EXPECT_FALSE(matches(spec, R"(<call>get_x {"x": "17"})"));
  EXPECT_FALSE(matches(spec, R"(<call>Get {"x": 17})"));
}

// The form of a tool call in the chat format: markers are tokens, what is between them is text.
TEST(Lark, MarkersAreNamedByTheirText) {
  const ConstraintPtr constraint =
      compile(lark("start: <｜tool▁calls▁begin｜> call+ <｜tool▁calls▁end｜>\n"
                   "call: <｜tool▁call▁begin｜> \"function\" <｜tool▁sep｜> \"add\\n\" "
                   "%json {\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},"
                   "\"required\":[\"a\"],\"additionalProperties\":false} <｜tool▁call▁end｜>\n"));
  ASSERT_NE(constraint, nullptr);
  EXPECT_THAT(allowed(*constraint), ElementsAre(marker("<｜tool▁calls▁begin｜>")));
  EXPECT_TRUE(constraint->accept(marker("<｜tool▁calls▁begin｜>")));
  for (int call = 0; call < 2; ++call) {
    EXPECT_TRUE(constraint->accept(marker("<｜tool▁call▁begin｜>")));
    EXPECT_TRUE(accepts(*constraint, "function"));
    EXPECT_THAT(allowed(*constraint), ElementsAre(marker("<｜tool▁sep｜>")));
    EXPECT_TRUE(constraint->accept(marker("<｜tool▁sep｜>")));
    EXPECT_TRUE(accepts(*constraint, "add\n{\"a\": -12}"));
    EXPECT_TRUE(constraint->accept(marker("<｜tool▁call▁end｜>")));
    // Back over markers and text, and on again.
    constraint->rollback(2);
    EXPECT_TRUE(accepts(*constraint, "}"));
    EXPECT_TRUE(constraint->accept(marker("<｜tool▁call▁end｜>")));
  }
  EXPECT_TRUE(constraint->accept(marker("<｜tool▁calls▁end｜>")));
  EXPECT_THAT(allowed(*constraint), ElementsAre(kEos));
}

TEST(Lark, TheTextOfAMarkerIsNotTheMarker) {
  const ConstraintPtr constraint = compile(lark("start: <think>"));
  ASSERT_NE(constraint, nullptr);
  EXPECT_FALSE(accepts(*constraint, "<think>"));
  EXPECT_TRUE(constraint->accept(marker("<think>")));
}

TEST(Lark, WhatIsWrongIsSaid) {
  EXPECT_THAT(refusal(lark("start: rule")), HasSubstr("rule"));
  EXPECT_THAT(refusal(lark("start: \"a")), HasSubstr("1("));
  EXPECT_THAT(refusal(lark("")), HasSubstr("Lark grammar: "));
  EXPECT_THAT(refusal(lark("start: <nothing>")), HasSubstr("<nothing>"));
  EXPECT_THAT(refusal(lark("start: %json {\"uniqueItems\": true}")), HasSubstr("uniqueItems"));
  EXPECT_THAT(refusal(lark("start: %json {")), HasSubstr("%json"));
}

// ---- limits and faults

std::string repeat(int times, const std::function<std::string(int)>& part) {
  std::string out;
  for (int i = 0; i < times; ++i) out += part(i);
  return out;
}

// What an attacker would send: each is refused with a short sentence, and neither the stack nor the
// time of the compiler runs out.
TEST(Limits, AreErrorsSoonAndShort) {
  const auto name = [](int i) { return std::to_string(i); };
  const GrammarSpec specs[] = {
      json_schema(std::string(200000, ' ')),
      json_schema(std::string(100000, '[')),
      json_schema("{\"" + std::string(100000, 'k') + "\":1}"),
      json_schema(R"({"$defs":{)" +
                  repeat(1900,
                         [&](int i) {
                           return "\"d" + name(i) + R"(":{"$ref":"#/$defs/d)" + name(i + 1) +
                                  "\"},";
                         }) +
                  R"("z":{}},"$ref":"#/$defs/d0"})"),
      json_schema(R"({"properties":{)" +
                  repeat(2000, [&](int i) { return "\"p" + name(i) + "\":{},"; }) + R"("z":{}}})"),
      json_schema(R"({"allOf":[)" +
                  repeat(40,
                         [&](int i) {
                           return R"({"anyOf":[{"properties":{"a)" + name(i) +
                                  R"(":{"const":1}}},{"properties":{"b)" + name(i) +
                                  R"(":{"const":1}}}]},)";
                         }) +
                  "{}]}"),
      regex(std::string(3000, '(') + std::string(3000, ')')),
      regex(std::string(9000, 'a')),
      lark("start: " + std::string(100000, '(')),
      lark("start: " + std::string(10000, '[') + "\"a\"" + std::string(10000, ']')),
      lark("start: r0\n" +
           repeat(1100, [&](int i) { return "r" + name(i) + ": r" + name(i + 1) + "\n"; })),
      lark("start: " + repeat(20000, [](int) { return "\"a\"? "; })),
      lark("start: <" + std::string(100000, 'x') + ">"),
      choice(std::vector<std::string>(2, std::string(70000, 'c'))),
  };
  for (const GrammarSpec& spec : specs) {
    const std::string message = refusal(spec);
    EXPECT_LT(message.size(), 700U) << message.substr(0, 100);
    EXPECT_GT(message.size(), 20U);
  }
}

// Small texts with huge languages are compiled lazily: the work of a mask is bounded, and a
// matcher that reaches its bound allows nothing any more.
TEST(Limits, LanguagesMayBeHuge) {
  for (const GrammarSpec& spec :
       {regex("((a{1000}){1000}){1000}"), regex("(((a|b)*c){50}.{0,1000}){50}"),
        regex("(.*a.{200}){3}"), lark("start: a\na: a a | \"a\" | \"aa\" | \"\"\n"),
        json_schema(R"({"type":"string","minLength":100000000})"),
        json_schema(R"({"type":"array","items":{"type":"null"},"minItems":100000000})")}) {
    const ConstraintPtr constraint = compile(spec);
    ASSERT_NE(constraint, nullptr);
    std::mt19937 random(1);
    for (int step = 0; step < 100; ++step) {
      const std::vector<engine::TokenId> tokens = allowed(*constraint);
      if (tokens.empty()) break;
      const engine::TokenId next = tokens[random() % tokens.size()];
      EXPECT_TRUE(constraint->accept(next));
      if (next == kEos) break;
    }
  }
}

TEST(Limits, WhatNothingMatchesIsAnError) {
  EXPECT_THAT(refusal(regex(R"([^\s\S])")), HasSubstr("no text matches"));
}

TEST(Faults, APanicInTheCompilerIsAnError) {
  // llguidance cuts what it quotes at byte 100, which is in the middle of a character here.
  std::string value = "x";
  for (int i = 0; i < 100; ++i) value += "é";
  const std::string message =
      refusal(json_schema(R"({"type":"string","pattern":[")" + value + "\"]}"));
  EXPECT_THAT(message, HasSubstr("the grammar compiler failed: panic"));
  EXPECT_EQ(message.find("backtrace"), std::string::npos);
  EXPECT_TRUE(matches(json_schema(R"({"const":1})"), "1"));
}

TEST(Faults, AVocabularyWithoutMarkersNamesNone) {
  const text::Tokenizer plain = text::TokenizerJson().build();
  const std::vector<engine::TokenId> eos = {0};
  auto factory = GrammarFactory::make(plain, plain.vocab_size(), eos);
  ASSERT_TRUE(factory.has_value());
  auto constraint = (*factory)->compile(lark("start: <think>"), std::nullopt);
  ASSERT_FALSE(constraint.has_value());
  EXPECT_EQ(constraint.error().kind, ErrorKind::kInvalid);
}

TEST(Factory, EndsOfTextsAreInTheVocabulary) {
  const std::vector<engine::TokenId> outside = {kVocabSize};
  EXPECT_FALSE(GrammarFactory::make(tokenizer(), kVocabSize, outside).has_value());
  EXPECT_FALSE(GrammarFactory::make(tokenizer(), kVocabSize, {}).has_value());
}

TEST(Factory, PaddingOfTheVocabularyIsNeverAllowed) {
  const std::vector<engine::TokenId> eos = {kEos};
  auto factory = GrammarFactory::make(tokenizer(), kVocabSize + 70, eos);
  ASSERT_TRUE(factory.has_value());
  auto constraint = (*factory)->compile(regex("(?s:.*)"), std::nullopt);
  ASSERT_TRUE(constraint.has_value());
  Mask mask((kVocabSize + 70 + 31) / 32, 0xFFFFFFFF);
  EXPECT_TRUE((*constraint)->fill_mask(mask));
  EXPECT_TRUE(allows(mask, kEos));
  EXPECT_TRUE(allows(mask, tokenizer().encode("a", text::SpecialTokens::kTreatAsText)[0]));
  for (engine::TokenId t = kVocabSize; t < kVocabSize + 70; ++t) EXPECT_FALSE(allows(mask, t)) << t;
  EXPECT_FALSE((*constraint)->accept(kVocabSize));
  EXPECT_FALSE((*constraint)->accept(kVocabSize + 1000));
  EXPECT_FALSE((*constraint)->accept(-1));
  EXPECT_TRUE((*constraint)->accept(kEos));
}

TEST(Factory, EveryEndIsAllowedWhereTheTextMayEnd) {
  const std::vector<engine::TokenId> eos = {kEos, marker("<｜User｜>")};
  auto factory = GrammarFactory::make(tokenizer(), kVocabSize, eos);
  ASSERT_TRUE(factory.has_value());
  auto constraint = (*factory)->compile(regex("a"), std::nullopt);
  ASSERT_TRUE(constraint.has_value());
  EXPECT_FALSE((*constraint)->accept(marker("<｜User｜>")));
  ASSERT_TRUE(accepts(**constraint, "a"));
  EXPECT_THAT(allowed(**constraint), ElementsAre(kEos, marker("<｜User｜>")));
  EXPECT_TRUE((*constraint)->accept(marker("<｜User｜>")));
}

TEST(Factory, ConstraintsOutliveIt) {
  const std::vector<engine::TokenId> eos = {kEos};
  ConstraintPtr constraint;
  {
    auto factory = GrammarFactory::make(tokenizer(), kVocabSize, eos);
    constraint = (*factory)->compile(regex("[ab]+"), std::nullopt).value();
  }
  EXPECT_TRUE(accepts(*constraint, "abba"));
}

TEST(Factory, CompilesOnSeveralThreadsAtOnce) {
  factory();
  std::vector<std::thread> threads;
  std::vector<int> matched(4);
  threads.reserve(matched.size());
  for (std::size_t i = 0; i < matched.size(); ++i) {
    threads.emplace_back([&matched, i] {
      for (int round = 0; round < 5; ++round) {
        const std::string name(1, static_cast<char>('a' + i));
        const GrammarSpec spec = json_schema(
            R"({"type":"object","properties":{")" + name +
            R"(":{"type":"array","items":{"type":"integer"}}},"required":[")" + name + "\"]}");
        if (matches(spec, "{\"" + name + "\": [1, 2, 3]}")) ++matched[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(matched, ElementsAre(5, 5, 5, 5));
}

// A factory of a test's own, that keeps so many grammars.
std::unique_ptr<GrammarFactory> keeping(std::size_t kept) {
  const std::vector<engine::TokenId> eos = {kEos};
  auto made = GrammarFactory::make(tokenizer(), kVocabSize, eos, kept);
  EXPECT_TRUE(made.has_value());
  return std::move(*made);
}

TEST(Factory, CompilesAGrammarOnceAndGivesEachSequenceItsOwn) {
  const auto own = keeping(2);
  const auto first = own->compile(regex("ab+"), std::nullopt);
  ASSERT_TRUE(first.has_value());
  ASSERT_TRUE(accepts(**first, "ab"));
  const auto second = own->compile(regex("ab+"), std::nullopt);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(own->compilations(), 1U);
  EXPECT_FALSE(accepts(**second, "b")) << "it is at the beginning";
  EXPECT_TRUE(accepts(**second, "abb"));
  EXPECT_TRUE(accepts(**first, "b"));
  const auto gated = own->compile(regex("ab+"), marker("</think>"));
  ASSERT_TRUE(gated.has_value());
  EXPECT_EQ(own->compilations(), 1U);
  Mask mask((kVocabSize + 31) / 32);
  EXPECT_FALSE((*gated)->fill_mask(mask)) << "the gate is the sequence's, not the grammar's";
}

TEST(Factory, KeepsTheGrammarsThatWereUsedLast) {
  const auto own = keeping(2);
  const auto compiles = [&](const GrammarSpec& spec) {
    const std::uint64_t before = own->compilations();
    EXPECT_TRUE(own->compile(spec, std::nullopt).has_value());
    return own->compilations() > before;
  };
  EXPECT_TRUE(compiles(regex("a")));
  EXPECT_TRUE(compiles(lark("start: \"a\"")));
  EXPECT_FALSE(compiles(regex("a")));
  EXPECT_TRUE(compiles(choice({"b"}))) << "the Lark grammar makes room for it";
  EXPECT_FALSE(compiles(regex("a")));
  EXPECT_TRUE(compiles(lark("start: \"a\"")));
  EXPECT_TRUE(compiles(choice({"b"})));
}

TEST(Factory, KeepsOneKindApartFromAnother) {
  const auto own = keeping(8);
  const std::string text = R"({"const":1})";
  ASSERT_TRUE(own->compile(json_schema(text), std::nullopt).has_value());
  EXPECT_FALSE(own->compile(lark(text), std::nullopt).has_value());
  EXPECT_FALSE(own->compile(lark(text), std::nullopt).has_value());
  EXPECT_EQ(own->compilations(), 3U) << "and no failures";
}

TEST(Factory, KeepsOnlySoMuchText) {
  const auto own = keeping(GrammarFactory::kKept);
  const auto large = [](int i) {
    return json_schema(R"({"description":")" + std::string(120'000, 'x') + R"(","const":)" +
                       std::to_string(i) + "}");
  };
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(own->compile(large(i), std::nullopt).has_value());
  ASSERT_EQ(own->compilations(), 10U);
  ASSERT_TRUE(own->compile(large(9), std::nullopt).has_value());
  EXPECT_EQ(own->compilations(), 10U);
  ASSERT_TRUE(own->compile(large(0), std::nullopt).has_value());
  EXPECT_EQ(own->compilations(), 11U);
}

// ---- one sequence

TEST(Constraint, ARefusedTokenChangesNothing) {
  const ConstraintPtr constraint = compile(json_schema(R"({"enum":["red","green"]})"));
  ASSERT_TRUE(accepts(*constraint, "\"r"));
  const Mask before = mask_of(*constraint);
  for (engine::TokenId t = 0; t < kVocabSize; ++t) {
    if (allows(before, t)) continue;
    EXPECT_FALSE(constraint->accept(t)) << t;
  }
  EXPECT_EQ(mask_of(*constraint), before);
  EXPECT_TRUE(accepts(*constraint, "ed\""));
}

TEST(Constraint, RollbackBringsBackEachMask) {
  const std::string text = R"({"name": "Zoë \"x\"", "tags": ["a", "b"], "n": -1.5e3})";
  GrammarSpec spec;
  spec.kind = Kind::kJsonObject;
  const ConstraintPtr constraint = compile(spec);
  std::vector<engine::TokenId> tokens = tokenizer().encode(text, text::SpecialTokens::kTreatAsText);
  tokens.push_back(kEos);
  std::vector<Mask> masks;
  for (const engine::TokenId t : tokens) {
    masks.push_back(mask_of(*constraint));
    ASSERT_TRUE(constraint->accept(t));
  }
  const int n = static_cast<int>(tokens.size());
  for (int back = 1; back <= n; ++back) {
    constraint->rollback(back);
    ASSERT_EQ(mask_of(*constraint), masks[static_cast<std::size_t>(n - back)]) << back;
    for (int i = n - back; i < n; ++i) {
      ASSERT_TRUE(constraint->accept(tokens[static_cast<std::size_t>(i)])) << back;
    }
  }
  constraint->rollback(0);
  EXPECT_FALSE(constraint->accept(tokens[0]));
}

TEST(Constraint, BehindTheEndComesNothing) {
  const ConstraintPtr constraint = compile(regex("ab?"));
  ASSERT_TRUE(accepts(*constraint, "a"));
  EXPECT_TRUE(allows(mask_of(*constraint), kEos));
  EXPECT_TRUE(constraint->accept(kEos));
  EXPECT_THAT(allowed(*constraint), ElementsAre(kEos));
  EXPECT_FALSE(constraint->accept(kEos));
  EXPECT_FALSE(accepts(*constraint, "b"));
  constraint->rollback(1);
  EXPECT_TRUE(accepts(*constraint, "b"));
  EXPECT_THAT(allowed(*constraint), ElementsAre(kEos));  // nothing else is left
  EXPECT_TRUE(constraint->accept(kEos));
  constraint->rollback(3);
  EXPECT_TRUE(accepts(*constraint, "ab"));
}

TEST(Gate, EverythingIsAllowedUntilItsTokenWasTaken) {
  const engine::TokenId end = marker("</think>");
  const ConstraintPtr constraint = compile(choice({"yes", "no"}), end);
  Mask mask((kVocabSize + 31) / 32, 0x5A5A5A5A);
  const Mask untouched = mask;
  EXPECT_FALSE(constraint->fill_mask(mask));
  EXPECT_EQ(mask, untouched);
  EXPECT_TRUE(constraint->accept(marker("<think>")));
  EXPECT_TRUE(constraint->accept(kEos));  // where the thought ends is not the grammar's business
  EXPECT_TRUE(constraint->accept(77));
  EXPECT_FALSE(constraint->fill_mask(mask));
  EXPECT_TRUE(constraint->accept(end));
  EXPECT_FALSE(allowed(*constraint).empty());
  EXPECT_FALSE(constraint->accept(77));
  EXPECT_FALSE(constraint->accept(end));
  EXPECT_TRUE(accepts(*constraint, "yes"));
  EXPECT_THAT(allowed(*constraint), ElementsAre(kEos));
}

TEST(Gate, IsClosedAgainWhenItsTokenIsTakenBack) {
  const engine::TokenId end = marker("</think>");
  const ConstraintPtr constraint = compile(choice({"yes", "no"}), end);
  Mask mask((kVocabSize + 31) / 32);
  ASSERT_TRUE(constraint->accept(70));
  ASSERT_TRUE(constraint->accept(end));
  const Mask first = mask_of(*constraint);
  ASSERT_TRUE(accepts(*constraint, "yes"));
  const int grammar_tokens =
      static_cast<int>(tokenizer().encode("yes", text::SpecialTokens::kTreatAsText).size());
  ASSERT_TRUE(constraint->accept(kEos));
  constraint->rollback(grammar_tokens + 1);
  EXPECT_EQ(mask_of(*constraint), first);
  ASSERT_TRUE(accepts(*constraint, "yes"));
  constraint->rollback(grammar_tokens + 2);  // over the gate's token and into the thought
  EXPECT_FALSE(constraint->fill_mask(mask));
  EXPECT_TRUE(constraint->accept(71));
  EXPECT_FALSE(constraint->fill_mask(mask));
  EXPECT_TRUE(constraint->accept(end));
  EXPECT_EQ(mask_of(*constraint), first);
  constraint->rollback(1);
  EXPECT_FALSE(constraint->fill_mask(mask));
  EXPECT_TRUE(constraint->accept(end));
  EXPECT_TRUE(accepts(*constraint, "no"));
}

}  // namespace
}  // namespace dsm::grammar
