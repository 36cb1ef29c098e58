// Patterns of module names, as `quantization_config` has them after "re:": a small part of Python's
// regular expressions, matched from the beginning of a name (`re.match`). Known are characters,
// `.`, classes in brackets, `\d`, `\w` and escaped signs, groups, `|`, `*`, `+`, `?`, `^`, `$`.
// All states are followed at once, so a pattern from anywhere costs its length times the name's.
#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace dsm::sizing {

class NamePattern {
 public:
  // Longer ones are nobody's.
  static constexpr std::size_t kLongest = 512;

  // Nothing: it is wrong, or has something that is not known here.
  static std::optional<NamePattern> parse(std::string_view text);

  bool matches(std::string_view name) const;

 private:
  enum class Kind : std::uint8_t { kOne, kSplit, kBegin, kEnd, kAccept };
  struct State {
    Kind kind = Kind::kSplit;
    int next = -1;
    int other = -1;             // kSplit; -1: none
    std::bitset<256> one = {};  // kOne: a character of these
  };
  class Parser;

  // States that may be the next, and what finding them needs.
  struct Walk {
    std::vector<int> next;
    std::vector<int> open;
    std::vector<bool> seen;
  };
  void follow(int state, std::size_t at, std::size_t end, Walk& walk) const;

  std::vector<State> states_;
  int first_ = 0;
};

}  // namespace dsm::sizing
