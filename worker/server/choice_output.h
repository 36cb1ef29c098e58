// One choice's way from tokens to text: reasoning apart from the answer, code points whole, stop
// strings found in the answer and cut. One per sequence; not thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/engine/request.h"
#include "worker/server/tool_call_delta.h"
#include "worker/text/reasoning_parser.h"
#include "worker/text/stop_checker.h"
#include "worker/text/stream_decoder.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

class ChoiceOutput {
 public:
  enum class Reasoning {
    kNone,    // text completions: the markers are dropped like other special tokens
    kAnswer,  // a chat whose prompt closed the thought
    kInside,  // a chat whose prompt opened it
  };
  struct Delta {
    std::string content;
    std::string reasoning;
    std::vector<ToolCallDelta> tool_calls = {};
    std::vector<engine::PositionLogprobs> logprobs = {};  // of the tokens that gave this delta
    bool stopped = false;  // a stop string is complete: nothing comes after this
  };

  // `tokenizer` must outlive this.
  ChoiceOutput(const text::Tokenizer& tokenizer, Reasoning reasoning,
               std::vector<std::string> stops, bool include_stop);

  Delta push(engine::TokenId token);
  // The end of the tokens: what was held back.
  Delta finish();

  int tokens() const { return tokens_; }
  int reasoning_tokens() const;
  // The stop string that ended it.
  const std::optional<std::string>& stop_string() const { return stops_.matched(); }

 private:
  Delta checked(text::ReasoningParser::Delta raw);

  // One of the two.
  std::optional<text::ReasoningParser> parser_;
  std::optional<text::StreamDecoder> decoder_;
  text::StopChecker stops_;
  int tokens_ = 0;
};

}  // namespace dsm::server
