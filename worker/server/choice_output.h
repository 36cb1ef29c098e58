// One choice's way from tokens to what a client gets: reasoning, answer and tool calls apart, code
// points whole, stop strings found in the answer and cut, log probabilities beside the text that
// they belong to. One per sequence; not thread-safe; movable.
//
// - Stop strings are looked for in the answer alone: not in the thought, not in a tool call, not in
//   an echoed prompt.
// - The log probabilities of a token go out with the delta that holds the last byte of its text. A
//   token without text (a marker) goes with the next that has some, or with the end. Tokens of
//   which a stop string left nothing are not told.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/engine/request.h"
#include "worker/server/tool_call_delta.h"
#include "worker/text/output_parser.h"
#include "worker/text/stop_checker.h"

namespace dsm::server {

// A prompt that its answer begins with (`echo` of text completions).
struct Echo {
  std::string text;
  std::vector<engine::TokenId> tokens;
  int logprobs = -1;  // as SamplingParams::logprobs, of the prompt's tokens
};

class ChoiceOutput {
 public:
  // Where the prompt leaves the output.
  enum class Reasoning {
    kNone,    // text completions: the markers are dropped like other special tokens
    kAnswer,  // a chat whose prompt closed the thought
    kInside,  // a chat whose prompt opened it
  };
  struct Options {
    std::vector<std::string> stops = {};
    bool include_stop = false;
    bool one_tool_call = false;  // a second call ends the output before it begins
    std::optional<Echo> echo = {};
    int prompt_logprobs = -1;                        // how many of each position are handed out
    std::function<std::string()> make_call_id = {};  // null: "call_" and random digits
  };
  struct Delta {
    std::string content = {};
    std::string reasoning = {};
    std::vector<ToolCallDelta> tool_calls = {};
    std::vector<engine::PositionLogprobs> logprobs = {};  // of the tokens that gave this delta
    std::vector<engine::PositionLogprobs> prompt_logprobs = {};  // once, when they were asked for
    bool stopped = false;  // nothing comes after this: a stop string, or a call too many

    // What came after this, joined to it.
    void append(Delta more);
  };

  ChoiceOutput(std::unique_ptr<text::OutputParser> parser, Options options);

  // The prompt's log probabilities, before the first token: of each token but the first.
  void prompt(std::vector<engine::PositionLogprobs> logprobs);
  // `logprobs` of this token when the engine gave them.
  Delta push(engine::TokenId token, const engine::PositionLogprobs* logprobs = nullptr);
  // The end of the tokens: what was held back.
  Delta finish();

  int tokens() const { return tokens_; }
  int reasoning_tokens() const { return parser_->reasoning_tokens(); }
  // The stop string that ended it.
  const std::optional<std::string>& stop_string() const { return stops_.matched(); }
  // OpenAI's word for how the choice ended, when it did with kStop (or a stop string) or kLength.
  std::string finish_reason(engine::FinishReason reason) const;

 private:
  // A token whose log probabilities wait for its text. Positions count the bytes of the answer, as
  // the parser gave them.
  struct Waiting {
    engine::PositionLogprobs logprobs;
    std::size_t begin = 0;
    std::optional<std::size_t> end;  // none: it has given no text yet
  };

  Delta checked(text::OutputParser::Delta raw);
  void begin(Delta& delta);
  void release_logprobs(Delta& delta, bool at_end);
  void release(Delta& delta, std::string_view text);

  std::unique_ptr<text::OutputParser> parser_;
  text::StopChecker stops_;
  Options options_;
  std::vector<engine::PositionLogprobs> prompt_logprobs_;
  std::deque<Waiting> waiting_;
  std::size_t parsed_ = 0;    // bytes of the answer that the parser gave
  std::size_t released_ = 0;  // of these, handed out
  int tokens_ = 0;
  bool begun_ = false;
  bool stopped_ = false;
  bool called_ = false;  // a tool
};

}  // namespace dsm::server
