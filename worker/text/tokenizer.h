// Byte-level BPE as a Hugging Face `tokenizer.json` describes it: added tokens, the pre-tokenizer's
// rules in order, merges. The ids are the ones that HF's `tokenizers` gives for the same file; a
// component that is not implemented is refused by name at loading, never approximated.
//
// Threading: a Tokenizer is immutable after loading; every method is const and may be called from
// any thread. Invariants: ids are in [0, vocab_size()); decode(encode(t)) == t for valid UTF-8 when
// every byte has a token. Bounds: encode is O(n log n) in the longest piece that the rules leave;
// about 30 bytes of memory per input byte at worst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dsm::text {

// What the text of an added token (such as "<think>") means when it stands in the input.
enum class SpecialTokens {
  kAllow,  // it becomes that token, as HF does by default: for prompts the caller wrote as a whole
  kTreatAsText,  // it is ordinary text: for content that must not be able to forge the
                 // conversation's structure
};

class Tokenizer {
 public:
  // Reads tokenizer.json and, beside it when they exist, tokenizer_config.json (which token is BOS
  // and EOS, whether a raw prompt starts with BOS) and the chat template (also
  // chat_template.jinja). kNotFound: no such file; kInvalid: what is wrong or not supported, by
  // name.
  static Result<Tokenizer> load(const std::filesystem::path& tokenizer_json);
  // The same from the files' text; an empty config_json stands for no file.
  static Result<Tokenizer> parse(std::string_view tokenizer_json, std::string_view config_json);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Text to ids, without BOS. Wrong bytes in `utf8` count as U+FFFD (see utf8.h).
  std::vector<std::int32_t> encode(std::string_view utf8, SpecialTokens special) const;
  // What a raw completion prompt needs: special tokens allowed, and BOS in front where the files
  // ask for it and the text does not start with it.
  std::vector<std::int32_t> encode_prompt(std::string_view utf8) const;
  // No encoding of `utf8` is shorter than this many tokens: a cheap reason to refuse a huge prompt
  // before encoding it.
  std::size_t least_tokens(std::string_view utf8) const;

  // Ids to valid UTF-8; ids without a token give nothing. For output that grows, see
  // stream_decoder.h.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const;
  // The bytes of one token (not necessarily whole code points); empty for an id without a token.
  std::string_view piece(std::int32_t id) const;

  // 1 + the highest id that has a token. A model's own vocabulary may be larger (padding rows).
  std::int32_t vocab_size() const;
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;
  // The id of an added token, by its text.
  std::optional<std::int32_t> special(std::string_view name) const;
  // True for an added token marked special: not part of the text that a client sees.
  bool is_special(std::int32_t id) const;

  // The text of the chat template that came with the tokenizer; empty when there is none. See
  // chat_template.h.
  std::string_view chat_template() const;
  // Whether the program that makes DeepSeek-V3.2's prompts lies beside the tokenizer
  // (encoding/encoding_dsv32.py); such a checkpoint has no template's text.
  bool has_v32_encoder() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace dsm::text
