// Calls of DeepSeek-V3.2: tags with the mark ｜DSML｜ in them, a parameter each.
//   <｜DSML｜function_calls>
//   <｜DSML｜invoke name="f">
//   <｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>
//   </｜DSML｜invoke>
//   </｜DSML｜function_calls>
// The parameters become one JSON object: a string as it comes, any other value when it is whole,
// since one that is no JSON is given as a string instead of spoiling the object.
//
// Inside, the mark is the byte FF, which no text has (it is valid UTF-8): what looks like a mark
// but was spelled by ordinary tokens, where it is a token, stays text, and no mark can slip out.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/text/chat_markers.h"
#include "worker/text/chat_parser.h"

namespace dsm::text {
namespace {

constexpr char kMark = '\xFF';
constexpr std::string_view kCallsOpen =
    "<\xFF"
    "function_calls>";
constexpr std::string_view kCallsClose =
    "</\xFF"
    "function_calls>";
constexpr std::string_view kInvoke =
    "<\xFF"
    "invoke name=\"";
constexpr std::string_view kInvokeClose =
    "</\xFF"
    "invoke>";
constexpr std::string_view kParameter =
    "<\xFF"
    "parameter name=\"";
constexpr std::string_view kParameterClose =
    "</\xFF"
    "parameter>";
constexpr std::string_view kAnyClose = "</\xFF";
constexpr std::string_view kTagEnd = "\">";
constexpr std::string_view kStringAttribute = "\" string=\"";
constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::size_t kLongestTag = 1024;  // of a name; bounds what is held back

// The inside of the JSON string with this text.
std::string escaped(std::string_view text) {
  std::string quoted = nlohmann::json(text).dump();
  return quoted.substr(1, quoted.size() - 2);
}

std::string without_marks(std::string_view text) {
  std::string out(text);
  std::erase(out, kMark);
  return out;
}

class DsmlParser : public ChatParser {
 public:
  DsmlParser(const Tokenizer& tokenizer, const ChatFamily& family, bool starts_in_reasoning)
      : ChatParser(tokenizer, family, starts_in_reasoning) {
    stream().add(markers::kDsml, /*in_text=*/true);
  }

 protected:
  void on_text(std::string_view text, Delta& delta) override {
    held_ += text;
    while (step(delta)) {
    }
  }

  void on_marker(std::string_view marker, Delta& delta) override {
    if (marker == markers::kDsml) on_text(std::string_view(&kMark, 1), delta);
  }

  void on_break(Delta& delta) override {
    switch (state_) {
      case State::kBody:
        // A tag that was cut off is dropped, what only might have become one is text.
        if (held_.find(kMark) == std::string::npos) say(held_, delta);
        break;
      case State::kCalls:
        if (held_.find(kMark) == std::string::npos && spaces() < held_.size()) {
          say_content(held_, delta);
        }
        break;
      case State::kInCall:
        break;
      case State::kString:
      case State::kValue:
        add_value(held_, delta);
        break;
    }
    if (state_ != State::kBody && state_ != State::kCalls) ++index_;
    held_.clear();
    state_ = State::kBody;
  }

 private:
  enum class State {
    kBody,    // thought or answer
    kCalls,   // between calls
    kInCall,  // between parameters
    kString,  // in a parameter, given as it comes
    kValue,   // in one that is held until it is whole
  };

  // At the beginning of held_.
  std::size_t spaces() const { return std::min(held_.find_first_not_of(kSpaces), held_.size()); }

  // One thing at the beginning of held_; false: more is needed.
  bool step(Delta& delta) {
    switch (state_) {
      case State::kBody:
        return body(delta);
      case State::kCalls:
      case State::kInCall:
        return spaces() < held_.size() && tag(delta);
      case State::kString:
      case State::kValue:
        return value(delta);
    }
    return false;
  }

  bool body(Delta& delta) {
    const std::size_t at = held_.find(kCallsOpen);
    if (at != std::string::npos) {
      std::string_view before = std::string_view(held_).substr(0, at);
      for (int i = 0; i < 2 && before.ends_with('\n'); ++i) before.remove_suffix(1);
      say(without_marks(before), delta);
      end_reasoning();
      held_.erase(0, at + kCallsOpen.size());
      state_ = State::kCalls;
      return true;
    }
    std::size_t keep = overlap(held_, kCallsOpen);
    // The two line feeds in front belong to the tag.
    for (int i = 0; i < 2 && keep < held_.size() && held_[held_.size() - 1 - keep] == '\n'; ++i) {
      ++keep;
    }
    const std::size_t size = held_.size() - keep;
    say(without_marks(std::string_view(held_).substr(0, size)), delta);
    held_.erase(0, size);
    return false;
  }

  // Spaces before a tag are its own, before text they are the text's.
  bool tag(Delta& delta) {
    const bool in_call = state_ == State::kInCall;
    if (take(kCallsClose)) {
      if (in_call) end_call(delta);
      state_ = State::kBody;
      return true;
    }
    if (in_call && take(kInvokeClose)) {
      end_call(delta);
      return true;
    }
    if (in_call && take(kParameterClose)) return true;
    if (is_next(kInvoke)) {
      if (in_call) end_call(delta);
      return quoted(kInvoke, &DsmlParser::open_call, delta);
    }
    if (in_call && is_next(kParameter)) {
      return quoted(kParameter, &DsmlParser::open_parameter, delta);
    }
    const std::string_view next = std::string_view(held_).substr(spaces());
    for (std::string_view known :
         {kCallsClose, kInvokeClose, kParameterClose, kInvoke, kParameter}) {
      if (known.starts_with(next)) return false;
    }
    return give_up(delta);
  }

  // What is no tag is content, up to where the next one may begin.
  bool give_up(Delta& delta) {
    const std::size_t size = std::min(held_.find_first_of(" \t\r\n<", spaces() + 1), held_.size());
    say_content(without_marks(std::string_view(held_).substr(0, size)), delta);
    held_.erase(0, size);
    return !held_.empty();
  }

  bool is_next(std::string_view text) const {
    return std::string_view(held_).substr(spaces()).starts_with(text);
  }

  bool take(std::string_view whole) {
    if (!is_next(whole)) return false;
    held_.erase(0, spaces() + whole.size());
    return true;
  }

  // Hands on the text in the tag's quotes when they are closed.
  bool quoted(std::string_view tag, void (DsmlParser::*use)(const std::string&, Delta&),
              Delta& delta) {
    const std::size_t begin = spaces() + tag.size();
    const std::size_t end = held_.find(kTagEnd, begin);
    if (end == std::string::npos || end > begin + kLongestTag) {
      return held_.size() > begin + kLongestTag + kTagEnd.size() && give_up(delta);
    }
    const std::string inside = held_.substr(begin, end - begin);
    held_.erase(0, end + kTagEnd.size());
    (this->*use)(inside, delta);
    return true;
  }

  void open_call(const std::string& name, Delta& delta) {
    add_call(delta, index_, without_marks(name), "{");
    first_ = true;
    state_ = State::kInCall;
  }

  void end_call(Delta& delta) {
    add_call(delta, index_++, "", "}");
    state_ = State::kCalls;
  }

  void open_parameter(const std::string& inside, Delta& delta) {
    std::string_view name = inside;
    bool is_string = false;  // without the attribute the value itself decides
    if (const std::size_t at = inside.rfind(kStringAttribute); at != std::string::npos) {
      is_string = name.substr(at + kStringAttribute.size()) == "true";
      name = name.substr(0, at);
    }
    std::string begun = first_ ? "\"" : ", \"";
    begun += escaped(without_marks(name)) + "\": ";
    if (is_string) begun += '"';
    add_call(delta, index_, "", begun);
    first_ = false;
    state_ = is_string ? State::kString : State::kValue;
  }

  bool value(Delta& delta) {
    const std::size_t end = held_.find(kAnyClose);
    if (end == std::string::npos) {
      if (state_ == State::kValue) return false;
      const std::size_t size = held_.size() - overlap(held_, kAnyClose);
      add_value(std::string_view(held_).substr(0, size), delta);
      held_.erase(0, size);
      return false;
    }
    add_value(std::string_view(held_).substr(0, end), delta);
    if (state_ == State::kString) add_call(delta, index_, "", "\"");
    held_.erase(0, end);
    state_ = State::kInCall;
    return true;
  }

  void add_value(std::string_view text, Delta& delta) {
    std::string plain = without_marks(text);
    if (state_ == State::kString) {
      if (!plain.empty()) add_call(delta, index_, "", escaped(plain));
    } else if (nlohmann::json::accept(plain)) {
      add_call(delta, index_, "", plain);
    } else {
      add_call(delta, index_, "", '"' + escaped(plain) + '"');
    }
  }

  State state_ = State::kBody;
  int index_ = 0;
  bool first_ = true;  // of the call's parameters
  std::string held_;   // not given yet
};

}  // namespace

std::unique_ptr<OutputParser> make_dsml_parser(const Tokenizer& tokenizer, const ChatFamily& family,
                                               bool starts_in_reasoning) {
  return std::make_unique<DsmlParser>(tokenizer, family, starts_in_reasoning);
}

}  // namespace dsm::text
