#include "operator/metrics_api/selector.h"

#include <algorithm>
#include <cctype>
#include <optional>

namespace dsm::metrics_api {
namespace {

constexpr std::size_t kLongest = 4096;  // of the text; a key and a value are 380 together

bool is_space(char c) {
  return c == ' ' || c == '\t';
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.' ||
         c == '/';
}

// Reads one requirement after the other; `rest_` is what is still to be read.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  Result<Selector> read() {
    Selector selector;
    skip_spaces();
    if (rest_.empty()) return selector;
    do {
      auto one = requirement();
      if (!one) return wrong();
      selector.push_back(*std::move(one));
    } while (take(","));
    if (!rest_.empty()) return wrong();
    return selector;
  }

 private:
  std::unexpected<Error> wrong() const {
    return fail(ErrorKind::kInvalid,
                "the label selector cannot be read" +
                    (rest_.empty() ? " to its end" : " at \"" + std::string(rest_) + "\""));
  }
  void skip_spaces() {
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
  }
  // A sign, with spaces behind it.
  bool take(std::string_view sign) {
    if (!rest_.starts_with(sign)) return false;
    rest_.remove_prefix(sign.size());
    skip_spaces();
    return true;
  }
  std::string word() {
    const auto end = std::ranges::find_if_not(rest_, is_word);
    const std::string out(rest_.begin(), end);
    rest_.remove_prefix(out.size());
    skip_spaces();
    return out;
  }

  std::optional<Requirement> requirement() {
    using Op = Requirement::Op;
    const bool absent = take("!");
    Requirement one{word(), Op::kExists, {}};
    if (one.key.empty()) return std::nullopt;
    if (absent) {
      one.op = Op::kNotExists;
    } else if (take("!=")) {
      one.op = Op::kNotIn;
      one.values = {word()};
    } else if (take("==") || take("=")) {
      one.op = Op::kIn;
      one.values = {word()};
    } else if (!rest_.empty() && rest_.front() != ',') {
      const std::string op = word();
      if (op != "in" && op != "notin") return std::nullopt;
      one.op = op == "in" ? Op::kIn : Op::kNotIn;
      if (!take("(")) return std::nullopt;
      do {
        one.values.push_back(word());
      } while (take(","));
      if (!take(")")) return std::nullopt;
    }
    return one;
  }

  std::string_view rest_;
};

}  // namespace

Result<Selector> parse_selector(std::string_view text) {
  if (text.size() > kLongest) {
    return fail(ErrorKind::kInvalid,
                "the label selector has more than " + std::to_string(kLongest) + " characters");
  }
  return Reader(text).read();
}

bool matches(const Selector& selector, const std::map<std::string, std::string>& labels) {
  return std::ranges::all_of(selector, [&](const Requirement& one) {
    using Op = Requirement::Op;
    const auto label = labels.find(one.key);
    const bool has = label != labels.end();
    const auto in = [&] {
      return has && std::ranges::find(one.values, label->second) != one.values.end();
    };
    switch (one.op) {
      case Op::kIn:
        return in();
      case Op::kNotIn:
        return !in();
      case Op::kExists:
        return has;
      case Op::kNotExists:
        return !has;
    }
    return false;
  });
}

}  // namespace dsm::metrics_api
