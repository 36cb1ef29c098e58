#include "worker/server/choice_output.h"

#include <utility>

namespace dsm::server {

ChoiceOutput::ChoiceOutput(const text::Tokenizer& tokenizer, Reasoning reasoning,
                           std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops), include_stop) {
  if (reasoning == Reasoning::kNone) {
    decoder_.emplace(tokenizer);
  } else {
    parser_.emplace(tokenizer, reasoning == Reasoning::kInside);
  }
}

ChoiceOutput::Delta ChoiceOutput::checked(text::ReasoningParser::Delta raw) {
  text::StopChecker::Output output = stops_.push(raw.content);
  return {.content = std::move(output.text),
          .reasoning = std::move(raw.reasoning),
          .stopped = output.stopped};
}

ChoiceOutput::Delta ChoiceOutput::push(engine::TokenId token) {
  ++tokens_;
  if (parser_) return checked(parser_->push(token));
  return checked({.reasoning = "", .content = decoder_->push(token)});
}

ChoiceOutput::Delta ChoiceOutput::finish() {
  Delta delta = parser_ ? checked(parser_->finish())
                        : checked({.reasoning = "", .content = decoder_->flush()});
  if (!delta.stopped) delta.content += stops_.flush();
  return delta;
}

int ChoiceOutput::reasoning_tokens() const {
  return parser_ ? parser_->reasoning_tokens() : 0;
}

}  // namespace dsm::server
