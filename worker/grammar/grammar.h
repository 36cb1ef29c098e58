// Output that must match a grammar: JSON, a JSON Schema, a regular expression, one of some texts,
// or a Lark grammar (the dialect of llguidance), as constraints on the tokens of one sequence.
// llguidance does the work; this is the only place that knows it.
//
// Threading: a GrammarFactory is immutable; compile() may be called from any thread. A constraint
// belongs to one sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "worker/engine/token_constraint.h"
#include "worker/text/tokenizer.h"

namespace dsm::grammar {

enum class Kind { kJsonObject, kJsonSchema, kRegex, kChoice, kLark };

struct GrammarSpec {
  Kind kind = Kind::kJsonObject;
  std::string text;                  // of a schema, an expression or a Lark grammar
  std::vector<std::string> choices;  // of kChoice
};

class GrammarFactory {
 public:
  // `tokenizer` is only used here. `vocab_size` is the model's; ids beyond the tokenizer's are
  // never allowed. `eos` are the ids that may end a text.
  static Result<std::unique_ptr<GrammarFactory>> make(const text::Tokenizer& tokenizer,
                                                      std::int32_t vocab_size,
                                                      std::span<const engine::TokenId> eos);
  ~GrammarFactory();
  GrammarFactory(const GrammarFactory&) = delete;
  GrammarFactory& operator=(const GrammarFactory&) = delete;

  // kInvalid: the grammar is wrong or too large; the message says why. With `after`, everything is
  // allowed until that token was taken (the end of a thought), and the grammar begins behind it.
  Result<std::shared_ptr<engine::TokenConstraint>> compile(
      const GrammarSpec& spec, std::optional<engine::TokenId> after) const;

 private:
  struct Impl;
  explicit GrammarFactory(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace dsm::grammar
