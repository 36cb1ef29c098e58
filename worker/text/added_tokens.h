// Finds added tokens ("<think>") in text: leftmost first, the longest of those that begin at the
// same place, as HF's matcher does; then the whitespace that a token's lstrip/rstrip takes away
// with it. Private to this room. Threading: immutable after building; cut() is const.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dsm::text {

struct AddedToken {
  std::int32_t id = -1;
  std::string content;
  bool special = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;
};

class AddedTokens {
 public:
  // A part of the text: a token, or (id -1) the text between tokens.
  struct Part {
    std::int32_t id;
    std::string_view text;
  };

  void add(const AddedToken& token);
  // HF looks for tokens that are not normalized in the text as it came, for the others in what that
  // left, after it was normalized.
  std::vector<Part> cut_raw(std::string_view text) const;
  std::vector<Part> cut_normalized(std::string_view text) const;

 private:
  // A trie over bytes; node 0 is the root.
  struct Node {
    std::unordered_map<unsigned char, std::int32_t> next;
    std::int32_t token = -1;  // index into tokens_
  };
  struct Trie {
    std::vector<Node> nodes{Node{}};
    std::array<bool, 256> begins{};  // first bytes, to skip quickly
  };
  void cut_with(const Trie& trie, std::string_view text, std::vector<Part>& parts) const;
  // The longest token at the beginning of `text`; -1 for none.
  std::int32_t longest(const Trie& trie, std::string_view text) const;

  std::vector<AddedToken> tokens_;
  std::array<Trie, 2> tries_;  // by `normalized`
};

}  // namespace dsm::text
