// Token ids to text, one at a time, for streaming: what push() returns is always whole code points,
// and everything returned, joined with flush(), equals Tokenizer::decode of all the ids. One per
// stream; not thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "worker/text/tokenizer.h"
#include "worker/text/utf8.h"

namespace dsm::text {

class StreamDecoder {
 public:
  // `tokenizer` must outlive the decoder. With skip_special, special tokens give no text.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);

  // The text that is complete with this token; may be empty while a code point is under way.
  std::string push(std::int32_t id);
  // The end of the stream: bytes that never became a code point give U+FFFD.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  Utf8Assembler utf8_;
};

}  // namespace dsm::text
