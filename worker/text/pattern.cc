#include "worker/text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "worker/text/unicode_additions.h"

namespace dsm::text {
namespace {

// Unicode's White_Space, which is Oniguruma's \s. (PCRE2's has U+180E too.)
constexpr std::string_view kWhiteSpace =
    "\\t\\n\\x0B\\f\\r\\x20\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"
    "\\x{205F}\\x{3000}";

std::optional<std::string_view> category_members(char name) {
  switch (name) {
    case 'L':
      return kAddedL;
    case 'M':
      return kAddedM;
    case 'N':
      return kAddedN;
    case 'P':
      return kAddedP;
    case 'S':
      return kAddedS;
    default:
      return std::nullopt;
  }
}

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  Result<std::string> run() {
    while (at_ < in_.size()) {
      Status status = in_class_ ? one_in_class() : one_outside();
      if (!status) return std::unexpected(status.error());
    }
    if (in_class_) return refuse("a character class that does not end");
    return std::move(out_);
  }

 private:
  std::unexpected<Error> refuse(std::string_view what) const {
    return fail(ErrorKind::kInvalid,
                "the pattern has " + std::string(what) + ", which is not supported");
  }
  bool next_is(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  void copy(std::size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
  }

  Status one_outside() {
    switch (in_[at_]) {
      case '\\':
        return escape();
      case '[':
        copy(1);
        if (next_is("^")) copy(1);
        if (next_is("]")) return refuse("an empty character class");
        in_class_ = true;
        return {};
      case '(':
        if (next_is("(?")) {
          for (std::string_view known : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
            if (next_is(known)) {
              copy(known.size());
              return {};
            }
          }
          return refuse("a group that begins with '" + std::string(in_.substr(at_, 3)) + "'");
        }
        copy(1);
        return {};
      case '{':
        if (next_is("{,")) return refuse("a repeat without a lower bound");
        copy(1);
        return {};
      case '}':
        // Ruby reads {n,m}+ as a repeat of a repeat, PCRE2 as a possessive one.
        if (next_is("}+")) return refuse("a repeated {n,m}");
        copy(1);
        return {};
      default:
        copy(1);
        return {};
    }
  }

  Status one_in_class() {
    if (in_[at_] == '\\') return escape();
    if (in_[at_] == '[') return refuse("a class inside a class");
    if (next_is("&&")) return refuse("an intersection of classes");
    if (in_[at_] == ']') in_class_ = false;
    copy(1);
    return {};
  }

  // A set of characters, as a class of its own or as a part of the class we are in.
  Status members(const std::string& set, bool negated) {
    if (!in_class_) {
      out_ += (negated ? "[^" : "[") + set + "]";
      return {};
    }
    if (negated) return refuse("a negated set inside a class");
    out_ += set;
    return {};
  }

  Status escape() {
    if (at_ + 1 == in_.size()) return refuse("a backslash at its end");
    char c = in_[at_ + 1];
    if (c == 'p' || c == 'P') return property(c == 'P');
    if (c == 's' || c == 'S') {
      at_ += 2;
      return members(std::string(kWhiteSpace), c == 'S');
    }
    if (c == 'u') {
      std::string_view hex = in_.substr(at_ + 2, 4);
      if (hex.size() != 4) return refuse("'\\u' without four digits");
      out_ += "\\x{" + std::string(hex) + "}";
      at_ += 6;
      return {};
    }
    if (is_letter_or_digit(c) && std::string_view("rntfx").find(c) == std::string_view::npos) {
      return refuse("'\\" + std::string(1, c) + "'");
    }
    copy(2);
    return {};
  }

  Status property(bool negated) {
    std::string_view rest = in_.substr(at_ + 2);
    bool braces = rest.size() >= 3 && rest[0] == '{' && rest[2] == '}';
    std::optional<std::string_view> added;
    if (braces) added = category_members(rest[1]);
    if (!added) {
      return refuse("the property '" + std::string(in_.substr(at_, in_.find('}', at_) - at_ + 1)) +
                    "'");
    }
    std::string set = "\\p{" + std::string(1, rest[1]) + "}" + std::string(*added);
    at_ += 5;
    return members(set, negated);
  }

  std::string_view in_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

Result<std::string> translate_pattern(std::string_view oniguruma) {
  return Translator(oniguruma).run();
}

struct Pattern::Code {
  pcre2_code* code = nullptr;
  bool jit = false;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

struct Pattern::Matcher::Data {
  pcre2_match_data* match = nullptr;
  Data() = default;
  Data(const Data&) = delete;
  Data& operator=(const Data&) = delete;
  ~Data() { pcre2_match_data_free(match); }
};

Result<Pattern> Pattern::compile(std::string_view oniguruma) {
  Result<std::string> translated = translate_pattern(oniguruma);
  if (!translated) return std::unexpected(translated.error());

  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE where = 0;
  auto code = std::make_unique<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &error, &where, context.get());
  if (code->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return fail(ErrorKind::kInvalid,
                "the pattern does not compile: " +
                    std::string(reinterpret_cast<const char*>(message.data())));
  }
  code->jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  return Pattern(std::move(code));
}

Pattern::Pattern(std::unique_ptr<const Code> code) : code_(std::move(code)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern::Matcher::Matcher(const Pattern& pattern)
    : pattern_(&pattern), data_(std::make_unique<Data>()) {
  data_->match = pcre2_match_data_create(1, nullptr);
}
Pattern::Matcher::Matcher(Matcher&&) noexcept = default;
Pattern::Matcher& Pattern::Matcher::operator=(Matcher&&) noexcept = default;
Pattern::Matcher::~Matcher() = default;

std::optional<Pattern::Span> Pattern::Matcher::find(std::string_view subject, std::size_t from) {
  auto* bytes = reinterpret_cast<PCRE2_SPTR>(subject.data());
  const pcre2_code* code = pattern_->code_->code;
  int rc = PCRE2_ERROR_JIT_STACKLIMIT;
  if (pattern_->code_->jit) {
    rc = pcre2_jit_match(code, bytes, subject.size(), from, PCRE2_NO_UTF_CHECK, data_->match,
                         nullptr);
  }
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    // The interpreter keeps its backtracking points on the heap, where there is more room.
    rc = pcre2_match(code, bytes, subject.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     data_->match, nullptr);
  }
  if (rc < 0) return std::nullopt;
  const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(data_->match);
  return Span{ovector[0], ovector[1]};
}

}  // namespace dsm::text
