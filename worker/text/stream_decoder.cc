#include "worker/text/stream_decoder.h"

namespace dsm::text {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(&tokenizer), skip_special_(skip_special) {}

std::string StreamDecoder::push(std::int32_t id) {
  std::string text;
  if (!(skip_special_ && tokenizer_->is_special(id))) utf8_.push(tokenizer_->piece(id), text);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  utf8_.flush(text);
  return text;
}

}  // namespace dsm::text
