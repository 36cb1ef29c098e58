#include "worker/text/utf8.h"

#include <cstdint>

namespace dsm::text {
namespace {

// What stands at the beginning of some bytes.
struct Step {
  enum Kind { kCodePoint, kIncomplete, kWrong } kind;
  std::size_t size;  // of the code point, of the incomplete one, or of the maximal wrong part
};

bool in(unsigned char c, unsigned char low, unsigned char high) {
  return c >= low && c <= high;
}

// Table 3-7 of the Unicode standard: the second byte's range depends on the first.
Step step(std::string_view bytes) {
  auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  unsigned char first = at(0);
  if (first < 0x80) return {Step::kCodePoint, 1};
  std::size_t need = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (in(first, 0xC2, 0xDF)) {
    need = 2;
  } else if (in(first, 0xE0, 0xEF)) {
    need = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (in(first, 0xF0, 0xF4)) {
    need = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  } else {
    return {Step::kWrong, 1};
  }
  for (std::size_t i = 1; i < need; ++i) {
    if (i == bytes.size()) return {Step::kIncomplete, i};
    if (!in(at(i), low, high)) return {Step::kWrong, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Step::kCodePoint, need};
}

}  // namespace

bool is_valid_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    Step s = step(bytes);
    if (s.kind != Step::kCodePoint) return false;
    bytes.remove_prefix(s.size);
  }
  return true;
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  Utf8Assembler assembler;
  assembler.push(bytes, out);
  assembler.flush(out);
  return out;
}

void Utf8Assembler::push(std::string_view bytes, std::string& out) {
  // Bytes join the held ones one at a time until what is held is decided; at most 3 rounds.
  while (held_size_ != 0 && !bytes.empty()) {
    held_[held_size_++] = bytes.front();
    Step s = step({held_.data(), held_size_});
    if (s.kind == Step::kWrong) {
      // The new byte does not continue the code point: it is looked at again on its own.
      out += kReplacement;
      held_size_ = 0;
      break;
    }
    bytes.remove_prefix(1);
    if (s.kind == Step::kCodePoint) {
      out.append(held_.data(), held_size_);
      held_size_ = 0;
    }
  }
  while (!bytes.empty()) {
    Step s = step(bytes);
    if (s.kind == Step::kIncomplete) {
      for (char c : bytes) held_[held_size_++] = c;
      return;
    }
    if (s.kind == Step::kCodePoint) {
      out += bytes.substr(0, s.size);
    } else {
      out += kReplacement;
    }
    bytes.remove_prefix(s.size);
  }
}

void Utf8Assembler::flush(std::string& out) {
  if (held_size_ != 0) out += kReplacement;
  held_size_ = 0;
}

}  // namespace dsm::text
