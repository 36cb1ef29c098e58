// Small hashing and random helpers that must give the same numbers on every machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dsm {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection with good avalanche.
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Lower-case hexadecimal SHA-256 of the bytes (OpenSSL).
std::string sha256_hex(std::string_view bytes);

// Lower-case hexadecimal HMAC-SHA256 of the bytes under a key (OpenSSL).
std::string hmac_sha256_hex(std::string_view key, std::string_view bytes);

// `bytes` random bytes from the operating system as lower-case hexadecimal; for tokens and request
// ids.
std::string random_hex(std::size_t bytes);

}  // namespace dsm
