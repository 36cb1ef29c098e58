#include "worker/server/json_slice.h"

#include <nlohmann/json.hpp>
#include <string>

namespace dsm::server {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// Walks over a text that is valid JSON; at the end of the text everything stops.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  // The next character that is not white space; 0 at the end.
  char peek() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  // Whether the next character is this one, which is then passed.
  bool pass(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  // The text of the value that begins here, which is passed.
  std::string_view value() {
    const char first = peek();
    const std::size_t begin = at_;
    if (first == '"') {
      string();
    } else if (first == '{' || first == '[') {
      nested();
    } else {
      while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '}' && text_[at_] != ']' &&
             !is_space(text_[at_])) {
        ++at_;
      }
    }
    return text_.substr(begin, at_ - begin);
  }

 private:
  void string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;
    }
    at_ = std::min(at_ + 1, text_.size());
  }
  void nested() {
    int depth = 0;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        string();
        continue;
      }
      ++at_;
      if (c == '{' || c == '[') ++depth;
      if ((c == '}' || c == ']') && --depth == 0) return;
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// Whether a key as it stands in the text, with its quotes, is this name.
bool is_key(std::string_view key, std::string_view name) {
  if (key.size() < 2) return false;
  if (key.find('\\') == std::string_view::npos) return key.substr(1, key.size() - 2) == name;
  const auto read = nlohmann::json::parse(key, nullptr, /*allow_exceptions=*/false);
  return read.is_string() && read.get_ref<const std::string&>() == name;
}

}  // namespace

std::string_view member_text(std::string_view object, std::string_view name) {
  Cursor cursor(object);
  std::string_view found;
  if (!cursor.pass('{')) return found;
  while (cursor.peek() == '"') {
    const std::string_view key = cursor.value();
    cursor.pass(':');
    const std::string_view value = cursor.value();
    if (is_key(key, name)) found = value;
    if (!cursor.pass(',')) break;
  }
  return found;
}

std::vector<std::string_view> element_texts(std::string_view array) {
  Cursor cursor(array);
  std::vector<std::string_view> found;
  if (!cursor.pass('[') || cursor.peek() == ']') return found;
  do {
    found.push_back(cursor.value());
  } while (cursor.pass(','));
  return found;
}

}  // namespace dsm::server
