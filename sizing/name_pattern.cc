#include "sizing/name_pattern.h"

namespace dsm::sizing {

// A part of a pattern becomes states between a first and a last one; the last is a split whose way
// on is not yet known.
class NamePattern::Parser {
 public:
  Parser(std::string_view text, std::vector<State>& states) : text_(text), states_(states) {}

  std::optional<int> all() {
    const Part part = either();
    if (wrong_ || at_ < text_.size()) return std::nullopt;
    states_[at(part.last)].next = add({.kind = Kind::kAccept});
    return part.first;
  }

 private:
  struct Part {
    int first;
    int last;
  };

  static std::size_t at(int state) { return static_cast<std::size_t>(state); }
  int add(State state) {
    states_.push_back(state);
    return static_cast<int>(states_.size()) - 1;
  }
  Part lone(State state) {
    const int last = add({});
    state.next = last;
    return {add(state), last};
  }
  bool more() const { return !wrong_ && at_ < text_.size(); }
  bool take(char c) {
    if (!more() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  Part mistake() {
    wrong_ = true;
    return lone({});
  }

  Part either() {
    Part part = sequence();
    while (take('|')) {
      const Part other = sequence();
      const int last = add({});
      states_[at(part.last)].next = last;
      states_[at(other.last)].next = last;
      part = {add({.next = part.first, .other = other.first}), last};
    }
    return part;
  }

  Part sequence() {
    Part part = lone({});
    while (more() && text_[at_] != '|' && text_[at_] != ')') {
      const Part next = repeated();
      states_[at(part.last)].next = next.first;
      part.last = next.last;
    }
    return part;
  }

  Part repeated() {
    Part part = atom();
    while (more()) {
      const char sign = text_[at_];
      if (sign != '*' && sign != '+' && sign != '?') break;
      ++at_;
      // Whether as many as can be are taken does not change whether there is a match.
      take('?');
      const int last = add({});
      const int again = add({.next = part.first, .other = last});
      states_[at(part.last)].next = sign == '?' ? last : again;
      part = {sign == '+' ? part.first : again, last};
    }
    return part;
  }

  Part atom() {
    const char c = text_[at_++];
    switch (c) {
      case '(': {
        if (take('?') && !take(':')) return mistake();
        const Part part = either();
        return take(')') ? part : mistake();
      }
      case '[':
        return set();
      case '.':
        return lone({.kind = Kind::kOne, .one = std::bitset<256>().set().reset('\n')});
      case '^':
        return lone({.kind = Kind::kBegin});
      case '$':
        return lone({.kind = Kind::kEnd});
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
        return mistake();
      case '\\': {
        const auto one = escaped();
        return one ? lone({.kind = Kind::kOne, .one = *one}) : mistake();
      }
      default:
        return lone({.kind = Kind::kOne, .one = only(c)});
    }
  }

  static std::bitset<256> only(char c) {
    return std::bitset<256>().set(static_cast<unsigned char>(c));
  }
  static std::bitset<256> range(char from, char to) {
    std::bitset<256> all;
    for (int c = static_cast<unsigned char>(from); c <= static_cast<unsigned char>(to); ++c) {
      all.set(static_cast<std::size_t>(c));
    }
    return all;
  }

  // Behind a backslash.
  std::optional<std::bitset<256>> escaped() {
    if (!more()) return std::nullopt;
    const char c = text_[at_++];
    const auto digits = range('0', '9');
    const auto letters = range('a', 'z') | range('A', 'Z');
    if (c == 'd') return digits;
    if (c == 'w') return digits | letters | only('_');
    // Any other letter or digit has a meaning that is not known here.
    if ((digits | letters).test(static_cast<unsigned char>(c))) return std::nullopt;
    return only(c);
  }

  // Behind a bracket.
  Part set() {
    std::bitset<256> all;
    const bool others = take('^');
    bool first = true;
    while (more() && (first || text_[at_] != ']')) {
      first = false;
      const char c = text_[at_++];
      if (c == '\\') {
        const auto one = escaped();
        if (!one) return mistake();
        all |= *one;
      } else if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        if (text_[at_ + 1] == '\\') return mistake();
        all |= range(c, text_[at_ + 1]);
        at_ += 2;
      } else {
        all |= only(c);
      }
    }
    if (!take(']')) return mistake();
    return lone({.kind = Kind::kOne, .one = others ? ~all : all});
  }

  std::string_view text_;
  std::vector<State>& states_;
  std::size_t at_ = 0;
  bool wrong_ = false;
};

std::optional<NamePattern> NamePattern::parse(std::string_view text) {
  if (text.size() > kLongest) return std::nullopt;
  NamePattern pattern;
  const auto first = Parser(text, pattern.states_).all();
  if (!first) return std::nullopt;
  pattern.first_ = *first;
  return pattern;
}

// All states that are reached from one without a character.
void NamePattern::follow(int state, std::size_t at, std::size_t end, Walk& walk) const {
  walk.open.assign(1, state);
  while (!walk.open.empty()) {
    const int now = walk.open.back();
    walk.open.pop_back();
    if (now < 0 || walk.seen[static_cast<std::size_t>(now)]) continue;
    walk.seen[static_cast<std::size_t>(now)] = true;
    const State& s = states_[static_cast<std::size_t>(now)];
    if (s.kind == Kind::kOne || s.kind == Kind::kAccept) {
      walk.next.push_back(now);
    } else if (s.kind == Kind::kSplit || (s.kind == Kind::kBegin ? at == 0 : at == end)) {
      walk.open.push_back(s.other);
      walk.open.push_back(s.next);
    }
  }
}

bool NamePattern::matches(std::string_view name) const {
  Walk walk;
  walk.seen.assign(states_.size(), false);
  follow(first_, 0, name.size(), walk);
  std::vector<int> now;
  for (std::size_t at = 0; !walk.next.empty(); ++at) {
    now.swap(walk.next);
    walk.next.clear();
    for (const int state : now) {
      if (states_[static_cast<std::size_t>(state)].kind == Kind::kAccept) return true;
    }
    if (at == name.size()) break;
    walk.seen.assign(states_.size(), false);
    for (const int state : now) {
      const State& s = states_[static_cast<std::size_t>(state)];
      if (s.one.test(static_cast<unsigned char>(name[at]))) {
        follow(s.next, at + 1, name.size(), walk);
      }
    }
  }
  return false;
}

}  // namespace dsm::sizing
