// One regular expression of a tokenizer.json, compiled by PCRE2 with JIT and Unicode properties.
//
// HF runs these patterns on Oniguruma (Ruby syntax, Unicode 16), so a pattern is translated first:
// `\p{L}` and its kind get the characters that PCRE2's older tables do not have, `\s` becomes
// exactly White_Space, `^` and `$` stand at line ends. What means something else in the two
// syntaxes is refused by name. Private to this room.
//
// Threading: a Pattern is immutable; each thread brings its own Matcher.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace dsm::text {

// The PCRE2 pattern that matches what `oniguruma` matches; kInvalid names what is not supported.
Result<std::string> translate_pattern(std::string_view oniguruma);

class Pattern {
 public:
  static Result<Pattern> compile(std::string_view oniguruma);

  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  struct Span {
    std::size_t begin;
    std::size_t end;
  };

  // What one thread needs to match; made once per call of the tokenizer, cheap beside it.
  class Matcher {
   public:
    explicit Matcher(const Pattern& pattern);
    Matcher(Matcher&&) noexcept;
    Matcher& operator=(Matcher&&) noexcept;
    ~Matcher();
    // The first match in `subject` (valid UTF-8) that begins at or after `from`, a code point's
    // border. A match that PCRE2 gives up on for its resource limits counts as none.
    std::optional<Span> find(std::string_view subject, std::size_t from);

   private:
    struct Data;
    const Pattern* pattern_;
    std::unique_ptr<Data> data_;
  };

 private:
  struct Code;
  explicit Pattern(std::unique_ptr<const Code> code);
  std::unique_ptr<const Code> code_;
};

}  // namespace dsm::text
