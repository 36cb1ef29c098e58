// Output that must match a grammar: JSON, a JSON Schema, a regular expression, one of some texts,
// or a Lark grammar (the dialect of llguidance), as constraints on the tokens of one sequence.
// llguidance does the work; this is the only place that knows it.
//
// Threading: compile() may be called from any thread. A constraint belongs to one sequence.
#pragma once

#include <cstddef>
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
  static constexpr std::size_t kKept = 64;

  // `tokenizer` is only used here. `vocab_size` is the model's; ids beyond the tokenizer's are
  // never allowed. `eos` are the ids that may end a text. So many grammars are kept compiled, those
  // used last.
  static Result<std::unique_ptr<GrammarFactory>> make(const text::Tokenizer& tokenizer,
                                                      std::int32_t vocab_size,
                                                      std::span<const engine::TokenId> eos,
                                                      std::size_t kept = kKept);
  ~GrammarFactory();
  GrammarFactory(const GrammarFactory&) = delete;
  GrammarFactory& operator=(const GrammarFactory&) = delete;

  // kInvalid: the grammar is wrong or too large; the message says why. With `after`, everything is
  // allowed until that token was taken (the end of a thought), and the grammar begins behind it.
  Result<std::shared_ptr<engine::TokenConstraint>> compile(
      const GrammarSpec& spec, std::optional<engine::TokenId> after) const;
  // Times that a grammar was compiled, instead of found among those that are kept.
  std::uint64_t compilations() const;

 private:
  struct Impl;
  explicit GrammarFactory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::grammar
