// Finds what followed when a text ended before as it does now, to guess what follows this time.
//
// Positions that end in the same two tokens are linked, latest first. A look-up walks the newest of
// them and takes the one before which the most tokens agree with the text's end; so it costs little
// for any length of text. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "worker/engine/ids.h"

namespace dsm::engine {

class NgramIndex {
 public:
  static constexpr int kShortest = 2;  // tokens that must agree
  static constexpr int kLongest = 16;  // more do not make a guess better
  static constexpr int kLooks = 32;    // earlier places that are compared

  // At most `count` tokens that followed the best earlier place; empty when there is none. `text`
  // is what it was at the last call, or longer.
  std::vector<TokenId> propose(std::span<const TokenId> text, int count);

 private:
  void extend(std::span<const TokenId> text);

  // By pair of tokens: the last position of the second one. previous_[p]: the position before p
  // with the same pair, or -1.
  std::unordered_map<std::uint64_t, std::int32_t> latest_;
  std::vector<std::int32_t> previous_;
};

}  // namespace dsm::engine
