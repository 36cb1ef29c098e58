// Splits a model's output, token by token, into its reasoning and its answer. The markers (<think>
// and </think>) go into neither. Where both are tokens of their own they are known by id, so
// "</think>" spelled out by ordinary tokens stays text; otherwise they are found in the text, with
// a possible beginning held back.
//
// Rules: the state at the start comes from the prompt (EncodedPrompt::starts_in_reasoning), not
// from the output. A closing marker ends reasoning; an opening one begins it (again). A marker that
// changes nothing is dropped. Without any marker everything stays on the side where the prompt left
// it. One per stream; not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "worker/text/stream_decoder.h"
#include "worker/text/tokenizer.h"

namespace dsm::text {

class ReasoningParser {
 public:
  struct Delta {
    std::string reasoning;
    std::string content;
    bool empty() const { return reasoning.empty() && content.empty(); }
  };
  struct Markers {
    std::string open = "<think>";
    std::string close = "</think>";
  };

  // `tokenizer` must outlive the parser.
  ReasoningParser(const Tokenizer& tokenizer, bool starts_in_reasoning);
  ReasoningParser(const Tokenizer& tokenizer, bool starts_in_reasoning, Markers markers);

  Delta push(std::int32_t id);
  // The end of the output: what was held back.
  Delta finish();

  bool in_reasoning() const { return in_reasoning_; }
  // Tokens that were produced while reasoning, the closing marker included
  // (usage.reasoning_tokens).
  int reasoning_tokens() const { return reasoning_tokens_; }

 private:
  void append(std::string_view text, Delta& delta);
  void scan(Delta& delta, bool at_end);

  Markers markers_;
  std::optional<std::int32_t> open_id_;  // both or neither
  std::optional<std::int32_t> close_id_;
  StreamDecoder decoder_;
  std::string held_;  // text mode: may be the beginning of a marker
  bool in_reasoning_;
  int reasoning_tokens_ = 0;
};

}  // namespace dsm::text
