#include "worker/text/nfc.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <tuple>
#include <vector>

#include "worker/text/nfc_tables.h"

namespace dsm::text {
namespace {

// Hangul syllables are a lead, a vowel and perhaps a tail, in the order of their numbers.
constexpr std::uint32_t kSyllables = 0xAC00;
constexpr std::uint32_t kLeads = 0x1100;
constexpr std::uint32_t kVowels = 0x1161;
constexpr std::uint32_t kTails = 0x11A7;  // one before the first
constexpr std::uint32_t kLeadCount = 19;
constexpr std::uint32_t kVowelCount = 21;
constexpr std::uint32_t kTailCount = 28;
constexpr std::uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

struct Letter {
  std::uint32_t point;
  std::uint8_t combining;  // the canonical combining class; 0: it begins something new
};

std::uint8_t combining_class(std::uint32_t point) {
  if (point < 0x300) return 0;
  const auto* found = std::ranges::upper_bound(kNfcClasses, point, {}, &NfcClass::first);
  if (found == std::begin(kNfcClasses)) return 0;
  --found;
  return point <= found->last ? found->value : 0;
}

void decompose(std::uint32_t point, std::vector<Letter>& out) {
  auto add = [&](std::uint32_t part) { out.push_back({part, combining_class(part)}); };
  if (const std::uint32_t index = point - kSyllables; index < kSyllableCount) {
    add(kLeads + index / (kVowelCount * kTailCount));
    add(kVowels + index % (kVowelCount * kTailCount) / kTailCount);
    if (index % kTailCount != 0) add(kTails + index % kTailCount);
    return;
  }
  const auto* found =
      std::ranges::lower_bound(kNfcDecompositions, point, {}, &NfcDecomposition::point);
  if (found == std::end(kNfcDecompositions) || found->point != point) return add(point);
  for (int i = 0; i < found->size; ++i) add(kNfcParts[found->begin + i]);
}

// 0: the two do not become one.
std::uint32_t composed(std::uint32_t first, std::uint32_t second) {
  if (first - kLeads < kLeadCount && second - kVowels < kVowelCount) {
    return kSyllables + ((first - kLeads) * kVowelCount + (second - kVowels)) * kTailCount;
  }
  if (first - kSyllables < kSyllableCount && (first - kSyllables) % kTailCount == 0 &&
      second - kTails - 1 < kTailCount - 1) {
    return first + (second - kTails);
  }
  const auto* found = std::ranges::lower_bound(
      kNfcPairs, std::pair(first, second), {},
      [](const NfcPair& pair) { return std::pair(pair.first, pair.second); });
  const bool is_it =
      found != std::end(kNfcPairs) && found->first == first && found->second == second;
  return is_it ? found->composed : 0;
}

std::uint32_t next_point(std::string_view utf8, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(utf8[at++]);
  if (lead < 0x80) return lead;
  const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  std::uint32_t point = lead & (0x3F >> more);
  for (int i = 0; i < more; ++i) {
    point = point << 6 | (static_cast<unsigned char>(utf8[at++]) & 0x3F);
  }
  return point;
}

void append(std::uint32_t point, std::string& out) {
  if (point < 0x80) {
    out += static_cast<char>(point);
    return;
  }
  if (point < 0x800) {
    out += static_cast<char>(0xC0 | point >> 6);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | point >> 12);
    out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | point >> 18);
    out += static_cast<char>(0x80 | (point >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
  }
  out += static_cast<char>(0x80 | (point & 0x3F));
}

// Puts letters together where nothing that blocks stands between; what is left keeps its order.
void compose(std::vector<Letter>& letters) {
  std::size_t size = 0;     // of what is kept
  std::size_t starter = 0;  // the last kept one with class 0
  bool has_starter = false;
  for (const Letter letter : letters) {
    // Blocked: something of the same or a higher class, or another beginning, is in between.
    const bool next_to = has_starter && starter + 1 == size;
    const bool free = has_starter && (next_to || letters[size - 1].combining < letter.combining);
    const std::uint32_t whole = free ? composed(letters[starter].point, letter.point) : 0;
    if (whole != 0) {
      letters[starter].point = whole;
      continue;
    }
    letters[size] = letter;
    if (letter.combining == 0) {
      starter = size;
      has_starter = true;
    }
    ++size;
  }
  letters.resize(size);
}

}  // namespace

bool is_surely_nfc(std::string_view utf8) {
  // Below U+0300 nothing combines; CJK ideographs and most of what lies about them neither.
  for (std::size_t at = 0; at < utf8.size();) {
    if (static_cast<unsigned char>(utf8[at]) < 0xCC) {
      ++at;
      continue;
    }
    const std::uint32_t point = next_point(utf8, at);
    if (point < 0x4E00 || point > 0x9FFF) return false;
  }
  return true;
}

std::string to_nfc(std::string_view utf8) {
  std::vector<Letter> letters;
  letters.reserve(utf8.size());
  for (std::size_t at = 0; at < utf8.size();) decompose(next_point(utf8, at), letters);
  // Marks on one letter stand in the order of their classes, those of one class as written.
  for (auto begin = letters.begin(); begin != letters.end();) {
    if (begin->combining == 0) {
      ++begin;
      continue;
    }
    auto end = std::find_if(begin, letters.end(), [](Letter l) { return l.combining == 0; });
    std::stable_sort(begin, end, [](Letter a, Letter b) { return a.combining < b.combining; });
    begin = end;
  }
  compose(letters);
  std::string out;
  out.reserve(utf8.size());
  for (const Letter letter : letters) append(letter.point, out);
  return out;
}

}  // namespace dsm::text
