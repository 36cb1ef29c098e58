// Byte-pair encoding of one piece of text: its bytes become tokens, then the pair with the lowest
// rank (the leftmost of equals) is merged until no merge applies. The order is HF's, kept with a
// heap, so a piece of n bytes takes O(n log n). Private to this room. Threading: immutable after
// building; encode() is const.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dsm::text {

// (left id, right id) -> the merge. Open addressing: looked up for every pair of neighbours.
class MergeTable {
 public:
  struct Merge {
    std::int32_t rank = -1;  // -1: no such merge
    std::int32_t id = -1;    // the token that the pair becomes
  };
  explicit MergeTable(std::size_t size = 0);
  void put(std::int32_t left, std::int32_t right,
           Merge merge);  // a later merge of a pair replaces the earlier
  Merge find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t key = 0;
    Merge merge;
  };
  std::size_t slot_of(std::uint64_t key) const;
  std::vector<Slot> slots_;  // a power of two, never more than half full
};

struct Bpe {
  std::array<std::int32_t, 256>
      byte_ids;  // the token of each byte; -1: the byte is dropped, as HF does
  MergeTable merges;
  bool ignore_merges = false;  // a piece that is a token as a whole is that token
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  // Byte strings to ids; only for ignore_merges.
  std::unordered_map<std::string, std::int32_t, Hash, std::equal_to<>> tokens;

  // Memory that calls of one thread share, so that a short piece allocates nothing.
  struct Scratch {
    struct Symbol {
      std::int32_t id;
      std::int32_t prev;  // index, -1 at the ends
      std::int32_t next;
    };
    struct Candidate {
      std::int32_t rank;
      std::int32_t pos;
      std::int32_t id;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // Appends the piece's ids. The piece is shorter than 2^31 bytes.
  void encode(std::string_view piece, Scratch& scratch, std::vector<std::int32_t>& out) const;
};

}  // namespace dsm::text
