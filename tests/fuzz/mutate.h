// Deterministic mutation of text for tests of parsers: the same seed gives the same inputs on every
// machine, so a failure is repeated by running the test again. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsm::fuzz {

// SplitMix64.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  // In [0, bound); 0 for bound 0.
  std::size_t below(std::size_t bound) { return bound == 0 ? 0 : next() % bound; }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <typename List>
  auto pick(const List& list) {
    return *(std::begin(list) + static_cast<std::ptrdiff_t>(below(std::size(list))));
  }

 private:
  std::uint64_t state_;
};

// What parsers of JSON and numbers trip over.
inline constexpr std::string_view kNasty[] = {"null",
                                              "true",
                                              "{}",
                                              "[]",
                                              "\"\"",
                                              "-1",
                                              "0",
                                              "1e999",
                                              "18446744073709551616",
                                              "-9223372036854775808",
                                              "2147483648",
                                              "0.5",
                                              "[[[[[[[[",
                                              "{\"a\":",
                                              "\\ud800",
                                              "\xFF",
                                              "\xE4\xB8",
                                              std::string_view("\0", 1),
                                              "\"",
                                              ",",
                                              "999999999999",
                                              "NaN"};

// One to four small changes.
inline std::string mutate(std::string text, Random& random) {
  for (std::size_t n = 1 + random.below(4); n > 0; --n) {
    std::size_t at = random.below(text.size() + 1);
    switch (random.below(7)) {
      case 0:  // another byte
        if (at < text.size()) text[at] = static_cast<char>(random.below(256));
        break;
      case 1:  // one bit
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      case 2:
        text.erase(at, 1 + random.below(8));
        break;
      case 3:
        text.insert(at, random.pick(kNasty));
        break;
      case 4:
        text.resize(at);
        break;  // cut short
      case 5:
        text.insert(at, std::string(text, random.below(text.size() + 1), random.below(24)));
        break;
      default: {  // a value becomes another one
        std::size_t begin = text.find_first_of("0123456789\"tfn[{", at);
        if (begin == std::string::npos) break;
        std::size_t end = text.find_first_of(",]}", begin);
        text.replace(begin, end == std::string::npos ? end : end - begin, random.pick(kNasty));
      }
    }
  }
  return text;
}

// The text in random pieces, none empty.
inline std::vector<std::string> pieces(std::string_view text, Random& random, std::size_t longest) {
  std::vector<std::string> out;
  while (!text.empty()) {
    std::size_t size = std::min(text.size(), 1 + random.below(longest));
    out.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return out;
}

}  // namespace dsm::fuzz
