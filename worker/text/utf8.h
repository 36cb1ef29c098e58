// Turning bytes into valid UTF-8. Wrong bytes become U+FFFD, one for each maximal wrong part (the
// Unicode practice that Python's errors="replace" and Rust's from_utf8_lossy follow), so our text
// equals theirs byte for byte. Utf8Assembler does the same for bytes that arrive in pieces. Not
// thread-safe; values otherwise.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace dsm::text {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

bool is_valid_utf8(std::string_view bytes);
std::string to_valid_utf8(std::string_view bytes);

class Utf8Assembler {
 public:
  // Appends to `out` every code point that is complete now; at most 3 bytes are held back.
  void push(std::string_view bytes, std::string& out);
  // Bytes still held back become one U+FFFD; the assembler is empty again.
  void flush(std::string& out);
  bool holds_back() const { return held_size_ != 0; }

 private:
  std::array<char, 4> held_{};  // a valid but incomplete code point
  std::size_t held_size_ = 0;
};

}  // namespace dsm::text
