#include "worker/text/pre_tokenizer.h"

#include <optional>
#include <utility>

namespace dsm::text {
namespace {

struct Part {
  std::string_view text;
  bool match;
};

// Finds a rule's matches; holds what one thread needs for it.
class Finder {
 public:
  explicit Finder(const SplitRule& rule) {
    if (const auto* pattern = std::get_if<Pattern>(&rule.what)) {
      matcher_.emplace(*pattern);
    } else {
      literal_ = std::get<std::string>(rule.what);
    }
  }

  std::optional<Pattern::Span> find(std::string_view text, std::size_t from) {
    if (matcher_) return matcher_->find(text, from);
    std::size_t at = text.find(literal_, from);
    if (at == std::string_view::npos) return std::nullopt;
    return Pattern::Span{at, at + literal_.size()};
  }

 private:
  std::optional<Pattern::Matcher> matcher_;
  std::string_view literal_;
};

// The text as matches and what lies between them. An empty match is a match too: it separates what
// is on its two sides, but not right behind another match (Oniguruma's iteration).
void cut(Finder& finder, std::string_view text, bool invert, std::vector<Part>& parts) {
  std::size_t done = 0;  // everything before is in `parts`
  std::size_t from = 0;
  std::optional<std::size_t> last_end;
  while (from <= text.size()) {
    std::optional<Pattern::Span> span = finder.find(text, from);
    if (!span) break;
    if (span->end == span->begin && last_end == span->end) {
      do {
        ++from;
      } while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80);
      continue;
    }
    if (span->begin > done) parts.push_back({text.substr(done, span->begin - done), invert});
    parts.push_back({text.substr(span->begin, span->end - span->begin), !invert});
    done = from = span->end;
    last_end = span->end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), invert});
}

// Two neighbours of the same text as one.
std::string_view join(std::string_view a, std::string_view b) {
  return {a.data(), a.size() + b.size()};
}

void arrange(const std::vector<Part>& parts, SplitBehavior behavior,
             std::vector<std::string_view>& out) {
  std::optional<bool> before;  // was the part before this one a match
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (!part.match) out.push_back(part.text);
        break;
      case SplitBehavior::kIsolated:
        out.push_back(part.text);
        break;
      case SplitBehavior::kMergedWithPrevious:
        if (part.match && before == false) {
          out.back() = join(out.back(), part.text);
        } else {
          out.push_back(part.text);
        }
        break;
      case SplitBehavior::kMergedWithNext:
        if (part.match && i + 1 < parts.size() && !parts[i + 1].match) {
          out.push_back(join(part.text, parts[i + 1].text));
          ++i;
        } else {
          out.push_back(part.text);
        }
        break;
      case SplitBehavior::kContiguous:
        if (before == part.match) {
          out.back() = join(out.back(), part.text);
        } else {
          out.push_back(part.text);
        }
        break;
    }
    before = part.match;
  }
}

// Every piece with a space in front; `storage` holds the new text.
void put_spaces(std::vector<std::string_view>& pieces, std::string& storage) {
  std::size_t total = 0;
  for (std::string_view piece : pieces) total += piece.size() + 1;
  storage.clear();
  storage.reserve(total);  // so that the views stay good
  for (std::string_view& piece : pieces) {
    if (piece.starts_with(' ')) continue;
    std::size_t begin = storage.size();
    storage += ' ';
    storage += piece;
    piece = std::string_view(storage).substr(begin);
  }
}

}  // namespace

std::vector<std::string_view> PreTokenizer::split(std::string_view text,
                                                  std::string& storage) const {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  std::vector<std::string_view> next;
  std::vector<Part> parts;
  for (std::size_t i = 0; i <= rules.size(); ++i) {
    if (prefix_space_at == static_cast<int>(i)) put_spaces(pieces, storage);
    if (i == rules.size()) break;
    Finder finder(rules[i]);
    next.clear();
    for (std::string_view piece : pieces) {
      parts.clear();
      cut(finder, piece, rules[i].invert, parts);
      arrange(parts, rules[i].behavior, next);
    }
    std::erase_if(next, [](std::string_view piece) { return piece.empty(); });
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace dsm::text
