// A model's output, token by token, as text and the markers of its template. A marker that is a
// token is known by its id, so the same letters spelled by ordinary tokens stay text; one that is
// not can be looked for in the text, with a possible beginning held back. Text comes in whole code
// points. One per stream; not thread-safe. Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "worker/text/stream_decoder.h"
#include "worker/text/tokenizer.h"

namespace dsm::text {

// The longest end of `text` that is a beginning of `marker`, but not all of it.
std::size_t overlap(std::string_view text, std::string_view marker);

class MarkerStream {
 public:
  struct Event {
    std::string_view marker;  // empty: text
    std::string text;
  };

  // `tokenizer` must outlive this.
  explicit MarkerStream(const Tokenizer& tokenizer) : tokenizer_(&tokenizer), decoder_(tokenizer) {}
  // `name` lives as long as this. With `in_text` it is looked for in text when it is no token.
  void add(std::string_view name, bool in_text);
  // Both as tokens where both are, otherwise both in text: one that is a token would otherwise
  // never be closed by one that is not.
  void add_pair(std::string_view open, std::string_view close);

  std::vector<Event> push(std::int32_t id);
  // The end of the output: what was held back.
  std::vector<Event> finish();

 private:
  struct Known {
    std::int32_t id;
    std::string_view name;
  };
  void scan(bool at_end, std::vector<Event>& out);

  const Tokenizer* tokenizer_;
  StreamDecoder decoder_;
  std::vector<Known> tokens_;
  std::vector<std::string_view> texts_;
  std::string held_;  // may be the beginning of one of texts_
};

}  // namespace dsm::text
