#include "worker/text/reasoning_parser.h"

#include <algorithm>
#include <utility>

namespace dsm::text {
namespace {

// The longest end of `text` that is a beginning of `marker`, but not all of it.
std::size_t overlap(std::string_view text, std::string_view marker) {
  std::size_t size = std::min(text.size(), marker.size() - 1);
  while (size > 0 && !marker.starts_with(text.substr(text.size() - size))) --size;
  return size;
}

}  // namespace

ReasoningParser::ReasoningParser(const Tokenizer& tokenizer, bool starts_in_reasoning)
    : ReasoningParser(tokenizer, starts_in_reasoning, Markers()) {}

ReasoningParser::ReasoningParser(const Tokenizer& tokenizer, bool starts_in_reasoning,
                                 Markers markers)
    : markers_(std::move(markers)),
      open_id_(tokenizer.special(markers_.open)),
      close_id_(tokenizer.special(markers_.close)),
      decoder_(tokenizer),
      in_reasoning_(starts_in_reasoning) {
  if (!open_id_ || !close_id_) open_id_ = close_id_ = std::nullopt;
}

void ReasoningParser::append(std::string_view text, Delta& delta) {
  (in_reasoning_ ? delta.reasoning : delta.content) += text;
}

ReasoningParser::Delta ReasoningParser::push(std::int32_t id) {
  Delta delta;
  if (in_reasoning_) ++reasoning_tokens_;
  if (open_id_ == id || close_id_ == id) {
    append(decoder_.flush(), delta);  // a code point does not go on behind a marker
    in_reasoning_ = open_id_ == id;
    return delta;
  }
  if (open_id_) {
    append(decoder_.push(id), delta);
  } else {
    held_ += decoder_.push(id);
    scan(delta, /*at_end=*/false);
  }
  return delta;
}

ReasoningParser::Delta ReasoningParser::finish() {
  Delta delta;
  held_ += decoder_.flush();
  scan(delta, /*at_end=*/true);
  return delta;
}

// Hands out the held text up to what may still become a marker.
void ReasoningParser::scan(Delta& delta, bool at_end) {
  std::string_view text = held_;
  for (;;) {
    std::size_t open = text.find(markers_.open);
    std::size_t close = text.find(markers_.close);
    std::size_t at = std::min(open, close);
    if (at == std::string_view::npos) break;
    append(text.substr(0, at), delta);
    in_reasoning_ = open < close;
    text.remove_prefix(at + (open < close ? markers_.open : markers_.close).size());
  }
  std::size_t keep =
      at_end ? 0 : std::max(overlap(text, markers_.open), overlap(text, markers_.close));
  append(text.substr(0, text.size() - keep), delta);
  held_ = std::string(text.substr(text.size() - keep));
}

}  // namespace dsm::text
