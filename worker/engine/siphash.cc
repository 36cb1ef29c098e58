#include "worker/engine/siphash.h"

#include <bit>
#include <cstring>

namespace dsm::engine {

static_assert(std::endian::native == std::endian::little, "words are read as little-endian bytes");

SipHash128::SipHash128(const Hash128& key)
    : v0_(key.lo ^ 0x736f6d6570736575ULL),
      v1_(key.hi ^ 0x646f72616e646f6dULL ^ 0xee),
      v2_(key.lo ^ 0x6c7967656e657261ULL),
      v3_(key.hi ^ 0x7465646279746573ULL) {}

void SipHash128::round() {
  v0_ += v1_;
  v1_ = std::rotl(v1_, 13) ^ v0_;
  v0_ = std::rotl(v0_, 32);
  v2_ += v3_;
  v3_ = std::rotl(v3_, 16) ^ v2_;
  v0_ += v3_;
  v3_ = std::rotl(v3_, 21) ^ v0_;
  v2_ += v1_;
  v1_ = std::rotl(v1_, 17) ^ v2_;
  v2_ = std::rotl(v2_, 32);
}

void SipHash128::absorb(std::uint64_t word) {
  v3_ ^= word;
  round();
  round();
  v0_ ^= word;
}

void SipHash128::update(std::span<const std::byte> bytes) {
  const std::byte* p = bytes.data();
  std::size_t left = bytes.size();
  if (length_ % 8 == 0) {
    for (; left >= 8; p += 8, left -= 8, length_ += 8) {
      std::uint64_t word;
      std::memcpy(&word, p, 8);
      absorb(word);
    }
  }
  for (; left > 0; ++p, --left) {
    tail_ |= static_cast<std::uint64_t>(*p) << (8 * (length_ % 8));
    if (++length_ % 8 == 0) {
      absorb(tail_);
      tail_ = 0;
    }
  }
}

Hash128 SipHash128::finish() {
  absorb(tail_ | (length_ << 56));
  v2_ ^= 0xee;
  for (int i = 0; i < 4; ++i) {
    round();
  }
  Hash128 result;
  result.lo = v0_ ^ v1_ ^ v2_ ^ v3_;
  v1_ ^= 0xdd;
  for (int i = 0; i < 4; ++i) {
    round();
  }
  result.hi = v0_ ^ v1_ ^ v2_ ^ v3_;
  return result;
}

}  // namespace dsm::engine
