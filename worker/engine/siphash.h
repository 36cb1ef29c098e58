// SipHash-2-4 with a 128-bit result (Aumasson and Bernstein, 2012): a keyed hash whose collisions
// nobody without the key can construct.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace dsm::engine {

struct Hash128 {
  std::uint64_t lo = 0;
  std::uint64_t hi = 0;
  bool operator==(const Hash128&) const = default;
};

// Absorbs bytes in pieces; the result depends on the bytes alone, not on how they were cut.
class SipHash128 {
 public:
  explicit SipHash128(const Hash128& key);
  void update(std::span<const std::byte> bytes);
  Hash128 finish();

 private:
  void absorb(std::uint64_t word);
  void round();

  std::uint64_t v0_, v1_, v2_, v3_;
  std::uint64_t tail_ = 0;    // bytes that do not fill a word yet, lowest first
  std::uint64_t length_ = 0;  // bytes so far
};

}  // namespace dsm::engine
