// What a Tokenizer is made of; filled by tokenizer_json.cc, used by tokenizer.cc. Private to this
// room.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "worker/text/added_tokens.h"
#include "worker/text/bpe.h"
#include "worker/text/pre_tokenizer.h"

namespace dsm::text {

struct TokenizerData {
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  std::vector<std::string> pieces;  // id -> bytes; empty: no such token
  std::vector<bool> is_special;     // id -> an added token marked special
  std::unordered_map<std::string, std::int32_t> added_ids;
  std::size_t longest_piece = 1;
  bool loses_text =
      false;  // a rule, a strip flag or a missing byte drops text: no bound on bytes per token
  std::vector<std::int32_t>
      prefix;  // what a raw prompt gets in front (post-processor or add_bos_token)
  std::vector<std::int32_t> suffix;
  std::optional<std::int32_t> bos;
  std::optional<std::int32_t> eos;
  std::string chat_template;
  bool v32_encoder = false;  // encoding/encoding_dsv32.py lies beside the file
};

// Everything that the two files say; an empty config_json stands for no file.
Result<TokenizerData> read_tokenizer(std::string_view tokenizer_json, std::string_view config_json);

}  // namespace dsm::text
