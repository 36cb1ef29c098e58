#include "worker/server/plain_output.h"

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

}  // namespace

std::unique_ptr<text::OutputParser> plain_output(const text::Tokenizer& tokenizer) {
  return std::make_unique<PlainOutput>(tokenizer);
}

}  // namespace dsm::server
