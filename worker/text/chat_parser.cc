#include "worker/text/chat_parser.h"

#include "worker/text/chat_markers.h"

namespace dsm::text {

ChatParser::ChatParser(const Tokenizer& tokenizer, const ChatFamily& family,
                       bool starts_in_reasoning)
    : stream_(tokenizer), in_reasoning_(starts_in_reasoning) {
  if (family.thinking != Thinking::kNever) {
    stream_.add_pair(markers::kThinkOpen, markers::kThinkClose);
  }
  // By their ids only: nobody is kept from writing about them.
  for (std::string_view marker : markers::kAll) stream_.add(marker, /*in_text=*/false);
}

void ChatParser::say(std::string_view text, Delta& delta) const {
  (in_reasoning_ ? delta.reasoning : delta.content) += text;
}

void ChatParser::add_call(Delta& delta, int index, std::string_view name,
                          std::string_view arguments) {
  auto& calls = delta.tool_calls;
  if (calls.empty() || calls.back().index != index)
    calls.push_back({.index = index, .name = {}, .arguments = {}});
  calls.back().name += name;
  calls.back().arguments += arguments;
}

void ChatParser::take(const std::vector<MarkerStream::Event>& events, Delta& delta) {
  for (const MarkerStream::Event& event : events) {
    if (event.marker.empty()) {
      on_text(event.text, delta);
    } else if (event.marker == markers::kThinkOpen || event.marker == markers::kThinkClose) {
      on_break(delta);
      in_reasoning_ = event.marker == markers::kThinkOpen;
    } else {
      on_marker(event.marker, delta);
    }
  }
}

OutputParser::Delta ChatParser::push(std::int32_t id) {
  Delta delta;
  if (in_reasoning_) ++reasoning_tokens_;
  take(stream_.push(id), delta);
  return delta;
}

OutputParser::Delta ChatParser::finish() {
  Delta delta;
  take(stream_.finish(), delta);
  on_break(delta);
  return delta;
}

std::unique_ptr<OutputParser> make_output_parser(const Tokenizer& tokenizer,
                                                 const ChatFamily& family, bool starts_in_reasoning,
                                                 bool tools) {
  if (tools && (family.tools == ToolFormat::kTyped || family.tools == ToolFormat::kNamed)) {
    return make_call_parser(tokenizer, family, starts_in_reasoning);
  }
  if (tools && family.tools == ToolFormat::kDsml) {
    return make_dsml_parser(tokenizer, family, starts_in_reasoning);
  }
  return std::make_unique<ChatParser>(tokenizer, family, starts_in_reasoning);
}

}  // namespace dsm::text
