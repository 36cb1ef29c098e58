// Builders for tests of this room: the tokenizer of the default model, and a small one made in the
// test.
#pragma once

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/text/tokenizer.h"

namespace dsm::text {

// Tests run from the root of the repository.
inline Tokenizer default_tokenizer() {
  Result<Tokenizer> tokenizer = Tokenizer::load("models/deepseek-tiny/tokenizer.json");
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << "\n";
    std::abort();
  }
  return std::move(*tokenizer);
}

// A byte-level tokenizer.json: one token per byte of printable ASCII, these merges, these added
// tokens.
class TokenizerJson {
 public:
  TokenizerJson() {
    json_ = {{"normalizer", nullptr},
             {"added_tokens", nlohmann::json::array()},
             {"pre_tokenizer",
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
             {"decoder", {{"type", "ByteLevel"}}},
             {"post_processor", nullptr},
             {"model",
              {{"type", "BPE"},
               {"vocab", nlohmann::json::object()},
               {"merges", nlohmann::json::array()}}}};
    for (char c = '!'; c <= '~'; ++c) vocab(std::string(1, c));
    vocab("\xC4\xA0");  // U+0120, which stands for a space
    vocab("\xC4\x8A");  // U+010A, which stands for a line feed
  }
  TokenizerJson& vocab(const std::string& token) {
    json_["model"]["vocab"][token] = next_++;
    return *this;
  }
  // A token for every byte that has none yet.
  TokenizerJson& all_bytes() {
    int other = 0;
    for (int byte = 0; byte < 256; ++byte) {
      const bool itself =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const int code = itself ? byte : 256 + other++;
      std::string character(1, static_cast<char>(code));
      if (code >= 0x80) {
        character = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
      }
      if (!json_["model"]["vocab"].contains(character)) vocab(character);
    }
    return *this;
  }
  // Both halves are in the vocabulary; the whole is put there.
  TokenizerJson& merge(const std::string& left, const std::string& right) {
    if (!json_["model"]["vocab"].contains(left + right)) vocab(left + right);
    json_["model"]["merges"].push_back({left, right});
    return *this;
  }
  TokenizerJson& added(const std::string& content,
                       nlohmann::json flags = nlohmann::json::object()) {
    flags["id"] = next_++;
    flags["content"] = content;
    if (!flags.contains("special")) flags["special"] = true;
    json_["added_tokens"].push_back(flags);
    return *this;
  }
  nlohmann::json& json() { return json_; }
  std::string text() const { return json_.dump(); }
  Tokenizer build() const {
    Result<Tokenizer> tokenizer = Tokenizer::parse(text(), "");
    if (!tokenizer) {
      std::cerr << tokenizer.error().message << "\n";
      std::abort();
    }
    return std::move(*tokenizer);
  }

 private:
  nlohmann::json json_;
  int next_ = 0;
};

// The bytes of each token, which read better in a test than ids.
inline std::vector<std::string> pieces(const Tokenizer& tokenizer,
                                       const std::vector<std::int32_t>& ids) {
  std::vector<std::string> out;
  out.reserve(ids.size());
  for (std::int32_t id : ids) out.emplace_back(tokenizer.piece(id));
  return out;
}

}  // namespace dsm::text
