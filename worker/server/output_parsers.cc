#include "worker/server/output_parsers.h"

#include "worker/text/reasoning_parser.h"
#include "worker/text/stream_decoder.h"

namespace dsm::server {
namespace {

class PlainOutput final : public text::OutputParser {
 public:
  explicit PlainOutput(const text::Tokenizer& tokenizer) : decoder_(tokenizer) {}

  Delta push(std::int32_t id) override { return content(decoder_.push(id)); }
  Delta finish() override { return content(decoder_.flush()); }
  bool in_reasoning() const override { return false; }
  int reasoning_tokens() const override { return 0; }

 private:
  static Delta content(std::string text) {
    return {.reasoning = "", .content = std::move(text), .tool_calls = {}};
  }
  text::StreamDecoder decoder_;
};

// Templates without tools: a thought and an answer.
class ReasoningOutput final : public text::OutputParser {
 public:
  ReasoningOutput(const text::Tokenizer& tokenizer, bool starts_in_reasoning)
      : parser_(tokenizer, starts_in_reasoning) {}

  Delta push(std::int32_t id) override { return delta(parser_.push(id)); }
  Delta finish() override { return delta(parser_.finish()); }
  bool in_reasoning() const override { return parser_.in_reasoning(); }
  int reasoning_tokens() const override { return parser_.reasoning_tokens(); }

 private:
  static Delta delta(text::ReasoningParser::Delta raw) {
    return {
        .reasoning = std::move(raw.reasoning), .content = std::move(raw.content), .tool_calls = {}};
  }
  text::ReasoningParser parser_;
};

}  // namespace

std::unique_ptr<text::OutputParser> plain_output(const text::Tokenizer& tokenizer) {
  return std::make_unique<PlainOutput>(tokenizer);
}

std::unique_ptr<text::OutputParser> chat_output(
    const text::ChatTemplate& /*chat_template*/, const text::Tokenizer& tokenizer,
    bool starts_in_reasoning, const std::vector<text::ToolDefinition>& /*tools*/) {
  return std::make_unique<ReasoningOutput>(tokenizer, starts_in_reasoning);
}

}  // namespace dsm::server
