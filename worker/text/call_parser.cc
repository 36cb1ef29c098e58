// Calls between markers: <calls><call>function<sep>NAME\n```json\n{..}\n```<end of call>... (V3,
// R1) or <calls><call>NAME<sep>{..}<end of call>... (V3.1). Read leniently where that is safe: the
// fence may be missing, a call without arguments gets {}, the outer markers may be left out.
#include <algorithm>
#include <string>

#include "worker/text/chat_markers.h"
#include "worker/text/chat_parser.h"

namespace dsm::text {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::string_view kFence = "\n```";
constexpr std::size_t kLongestName = 1024;  // no function has one; bounds what is held back

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

class CallParser : public ChatParser {
 public:
  CallParser(const Tokenizer& tokenizer, const ChatFamily& family, bool starts_in_reasoning)
      : ChatParser(tokenizer, family, starts_in_reasoning),
        typed_(family.tools == ToolFormat::kTyped) {
    for (std::string_view marker : {markers::kCallsBegin, markers::kCallsEnd, markers::kCallBegin,
                                    markers::kCallEnd, markers::kSeparator}) {
      stream().add(marker, /*in_text=*/true);
    }
  }

 protected:
  void on_text(std::string_view text, Delta& delta) override {
    switch (state_) {
      case State::kBody:
        say(text, delta);
        break;
      case State::kBetween:
      case State::kBehindFence:
        between(text, delta);
        break;
      case State::kBroken:
        say_content(text, delta);
        break;
      case State::kArguments:
        arguments(text, delta);
        break;
      case State::kHead:
      case State::kNameLine:
      case State::kOpening:
        raw_ += text;
        part_ += text;
        advance(delta);
        break;
    }
  }

  void on_marker(std::string_view marker, Delta& delta) override {
    if (marker == markers::kCallsBegin || marker == markers::kCallBegin) {
      end_call(delta);
      end_reasoning();
      state_ = marker == markers::kCallBegin ? State::kHead : State::kBetween;
    } else if (marker == markers::kCallEnd) {
      end_call(delta);
    } else if (marker == markers::kCallsEnd) {
      end_call(delta);
      state_ = State::kBody;
    } else if (marker == markers::kSeparator && state_ == State::kHead) {
      head_end(delta);
    }
  }

  void on_break(Delta& delta) override {
    if (state_ == State::kArguments) {
      release(delta, /*at_end=*/true);
      ++index_;
    } else if (state_ == State::kBehindFence) {
      ++index_;
    } else if (is_undecided()) {
      say_content(raw_, delta);
    }
    reset(State::kBody);
  }

 private:
  enum class State {
    kBody,         // thought or answer
    kBetween,      // inside the block of calls, in none
    kHead,         // in a call: what it is (kTyped) or the name (kNamed)
    kNameLine,     // kTyped, behind the separator
    kOpening,      // the name is known, the arguments have not begun
    kArguments,    // given as they come
    kBehindFence,  // kTyped: the arguments are over, the call is not
    kBroken,       // the rest of a call that is content by now
  };

  bool is_undecided() const {
    return state_ == State::kHead || state_ == State::kNameLine || state_ == State::kOpening;
  }

  // Spaces before a marker are its own, before text they are the text's.
  void between(std::string_view text, Delta& delta) {
    held_ += text;
    const std::size_t size = held_.find_last_not_of(kSpaces) + 1;
    say_content(std::string_view(held_).substr(0, size), delta);
    held_.erase(0, size);
  }

  void reset(State state) {
    state_ = state;
    raw_.clear();
    part_.clear();
    name_.clear();
    held_.clear();
  }

  void head_end(Delta& delta) {
    // Should the call turn out to be none, what stood around the marker must not become one.
    raw_ += ' ';
    if (typed_) {
      state_ = State::kNameLine;
    } else {
      name_ = trimmed(part_);
      state_ = State::kOpening;
    }
    part_.clear();
    advance(delta);
  }

  void break_call(Delta& delta) {
    say_content(raw_, delta);
    reset(State::kBroken);
  }

  // As far as part_ allows.
  void advance(Delta& delta) {
    if (state_ == State::kNameLine) {
      const std::size_t line = part_.find('\n');
      if (line != std::string::npos) {
        name_ = trimmed(std::string_view(part_).substr(0, line));
        part_.erase(0, line + 1);
        if (name_.empty() || line > kLongestName) return break_call(delta);
        state_ = State::kOpening;
      }
    }
    if (state_ == State::kOpening) return open(delta);
    if (part_.size() > kLongestName) break_call(delta);
  }

  void open(Delta& delta) {
    if (name_.empty()) return break_call(delta);
    std::string_view rest = part_;
    auto skip_spaces = [&] {
      rest.remove_prefix(std::min(rest.find_first_not_of(kSpaces), rest.size()));
    };
    skip_spaces();
    if (typed_ && rest.starts_with("```")) {
      const std::size_t line = rest.find('\n');
      if (line == std::string_view::npos) {
        if (rest.size() > kLongestName) break_call(delta);
        return;
      }
      if (line > kLongestName) return break_call(delta);
      rest.remove_prefix(line);
      skip_spaces();
    }
    if (rest.empty() || (typed_ && (rest == "`" || rest == "``"))) return;
    if (!rest.starts_with('{')) return break_call(delta);
    std::string begun(rest);
    add_call(delta, index_, name_, "");
    state_ = State::kArguments;
    raw_.clear();
    part_.clear();
    arguments(begun, delta);
  }

  void arguments(std::string_view text, Delta& delta) {
    held_ += text;
    if (typed_) {
      // A raw line feed cannot stand inside a JSON string, so this is the fence.
      if (const std::size_t at = held_.find(kFence); at != std::string::npos) {
        std::string behind = held_.substr(at + kFence.size());
        held_.resize(at);
        release(delta, /*at_end=*/true);
        state_ = State::kBehindFence;
        on_text(behind, delta);
        return;
      }
    }
    release(delta, /*at_end=*/false);
  }

  // Gives what is held, but for spaces and a fence that may be the end of the arguments.
  void release(Delta& delta, bool at_end) {
    std::string_view text = held_;
    std::size_t size = text.size();
    auto drop_spaces = [&] { size = text.substr(0, size).find_last_not_of(kSpaces) + 1; };
    drop_spaces();
    if (typed_) {
      std::size_t ticks = 0;
      while (ticks < 3 && ticks < size && text[size - 1 - ticks] == '`') ++ticks;
      size -= ticks;
      drop_spaces();
    }
    if (size > 0) add_call(delta, index_, "", text.substr(0, size));
    if (at_end) {
      held_.clear();
    } else {
      held_.erase(0, size);
    }
  }

  void end_call(Delta& delta) {
    switch (state_) {
      case State::kBody:
      case State::kBetween:
        break;
      case State::kArguments:
        release(delta, /*at_end=*/true);
        ++index_;
        break;
      case State::kBehindFence:
        ++index_;
        break;
      case State::kNameLine:
        name_ = trimmed(part_);
        part_.clear();
        [[fallthrough]];
      case State::kOpening:
        if (!name_.empty() && trimmed(part_).empty()) {
          add_call(delta, index_++, name_, "{}");
          break;
        }
        [[fallthrough]];
      case State::kHead:
        say_content(raw_, delta);
        break;
      case State::kBroken:
        break;
    }
    reset(state_ == State::kBody ? State::kBody : State::kBetween);
  }

  bool typed_;
  State state_ = State::kBody;
  int index_ = 0;
  std::string raw_;   // the text of a call that may still turn out to be none
  std::string part_;  // of it, what the state has not used
  std::string name_;
  std::string held_;  // the end of the arguments, or spaces behind something
};

}  // namespace

std::unique_ptr<OutputParser> make_call_parser(const Tokenizer& tokenizer, const ChatFamily& family,
                                               bool starts_in_reasoning) {
  return std::make_unique<CallParser>(tokenizer, family, starts_in_reasoning);
}

}  // namespace dsm::text
