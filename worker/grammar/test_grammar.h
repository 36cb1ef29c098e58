// Helpers for tests of this room: the default model's tokenizer, masks as sets, walks.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "worker/grammar/grammar.h"

namespace dsm::grammar {

using ConstraintPtr = std::shared_ptr<engine::TokenConstraint>;

constexpr engine::TokenId kEos = 1;
constexpr std::int32_t kVocabSize = 1536;

// Tests run from the root of the repository.
inline const text::Tokenizer& tokenizer() {
  static const text::Tokenizer kTokenizer = [] {
    Result<text::Tokenizer> loaded = text::Tokenizer::load("models/deepseek-tiny/tokenizer.json");
    if (!loaded) throw std::runtime_error(loaded.error().message);
    return std::move(*loaded);
  }();
  return kTokenizer;
}

inline const GrammarFactory& factory() {
  static const std::unique_ptr<GrammarFactory> kFactory = [] {
    const std::vector<engine::TokenId> eos = {kEos};
    auto made = GrammarFactory::make(tokenizer(), kVocabSize, eos);
    if (!made) throw std::runtime_error(made.error().message);
    return std::move(*made);
  }();
  return *kFactory;
}

inline GrammarSpec json_schema(std::string text) {
  return {Kind::kJsonSchema, std::move(text), {}};
}
inline GrammarSpec regex(std::string text) {
  return {Kind::kRegex, std::move(text), {}};
}
inline GrammarSpec lark(std::string text) {
  return {Kind::kLark, std::move(text), {}};
}
inline GrammarSpec choice(std::vector<std::string> texts) {
  return {Kind::kChoice, "", std::move(texts)};
}

inline ConstraintPtr compile(const GrammarSpec& spec,
                             std::optional<engine::TokenId> after = std::nullopt) {
  auto constraint = factory().compile(spec, after);
  EXPECT_TRUE(constraint.has_value()) << constraint.error().message;
  return constraint.value_or(nullptr);
}

// The sentence with which a grammar is refused; empty, with a failure, when it is not.
inline std::string refusal(const GrammarSpec& spec) {
  auto constraint = factory().compile(spec, std::nullopt);
  EXPECT_FALSE(constraint.has_value()) << "was compiled: " << spec.text;
  if (constraint) return "";
  EXPECT_EQ(constraint.error().kind, ErrorKind::kInvalid);
  return constraint.error().message;
}

using Mask = std::vector<std::uint32_t>;

inline bool allows(const Mask& mask, engine::TokenId token) {
  return (mask[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

// The mask where the grammar is in force.
inline Mask mask_of(engine::TokenConstraint& constraint) {
  Mask mask((kVocabSize + 31) / 32, 0xDEADBEEF);
  EXPECT_TRUE(constraint.fill_mask(mask));
  return mask;
}

inline std::vector<engine::TokenId> allowed(engine::TokenConstraint& constraint) {
  const Mask mask = mask_of(constraint);
  std::vector<engine::TokenId> tokens;
  for (engine::TokenId t = 0; t < kVocabSize; ++t) {
    if (allows(mask, t)) tokens.push_back(t);
  }
  return tokens;
}

// Takes the text's tokens; each must be allowed by the mask, too.
inline bool accepts(engine::TokenConstraint& constraint, std::string_view text) {
  for (const engine::TokenId t : tokenizer().encode(text, text::SpecialTokens::kTreatAsText)) {
    const bool in_mask = allows(mask_of(constraint), t);
    const bool taken = constraint.accept(t);
    EXPECT_EQ(in_mask, taken) << tokenizer().piece(t);
    if (!taken) return false;
  }
  return true;
}

// Whether this is the whole of a text that matches.
inline bool matches(const GrammarSpec& spec, std::string_view text) {
  const ConstraintPtr constraint = compile(spec);
  return accepts(*constraint, text) && allows(mask_of(*constraint), kEos);
}

}  // namespace dsm::grammar
