// The parsers behind ChatTemplate::output_parser: one base that keeps thought and answer apart, and
// one heir for each way of writing calls. Private to this room.
//
// Rules that all keep, however the output is cut into tokens:
// - The state at the start comes from the prompt. A closing marker ends the thought; an opening one
//   begins it (again); so does a call end it, since some models call tools without closing it.
// - Markers go nowhere. Those that belong to the prompt (<｜User｜>) are dropped as well.
// - A call's name is given when its arguments have begun; a call that breaks before that is given
// as
//   content, without its markers, so nothing a model said is lost. Behind that its pieces stand,
//   and an output that ends inside the arguments leaves them cut short.
// - Calls are numbered in their order.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "worker/text/chat_family.h"
#include "worker/text/marker_stream.h"
#include "worker/text/output_parser.h"

namespace dsm::text {

class ChatParser : public OutputParser {
 public:
  ChatParser(const Tokenizer& tokenizer, const ChatFamily& family, bool starts_in_reasoning);

  Delta push(std::int32_t id) override;
  Delta finish() override;
  bool in_reasoning() const override { return in_reasoning_; }
  int reasoning_tokens() const override { return reasoning_tokens_; }

 protected:
  // Text outside of the thought markers, on the side where in_reasoning() says.
  virtual void on_text(std::string_view text, Delta& delta) { say(text, delta); }
  virtual void on_marker(std::string_view /*marker*/, Delta& /*delta*/) {}
  // The side changes, or the output ends: what was held back is decided.
  virtual void on_break(Delta& /*delta*/) {}

  MarkerStream& stream() { return stream_; }
  void end_reasoning() { in_reasoning_ = false; }
  // Adds to the thought or to the answer.
  void say(std::string_view text, Delta& delta) const;
  static void say_content(std::string_view text, Delta& delta) { delta.content += text; }
  // Adds to a call; neighbours of one call become one piece.
  static void add_call(Delta& delta, int index, std::string_view name, std::string_view arguments);

 private:
  void take(const std::vector<MarkerStream::Event>& events, Delta& delta);

  MarkerStream stream_;
  bool in_reasoning_;
  int reasoning_tokens_ = 0;
};

// Calls of V3, R1 (kTyped) and V3.1 (kNamed): markers of their own around them.
std::unique_ptr<OutputParser> make_call_parser(const Tokenizer& tokenizer, const ChatFamily& family,
                                               bool starts_in_reasoning);
// Calls of V3.2 (kDsml).
std::unique_ptr<OutputParser> make_dsml_parser(const Tokenizer& tokenizer, const ChatFamily& family,
                                               bool starts_in_reasoning);
std::unique_ptr<OutputParser> make_output_parser(const Tokenizer& tokenizer,
                                                 const ChatFamily& family, bool starts_in_reasoning,
                                                 bool tools);

}  // namespace dsm::text
