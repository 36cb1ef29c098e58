#include "worker/text/chat_template.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "base/random.h"
#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"
#include "worker/text/chat_parser.h"
#include "worker/text/tool_grammar.h"

namespace dsm::text {
namespace {

class IdSink : public PromptSink {
 public:
  explicit IdSink(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void marker(std::string_view name) override {
    std::optional<std::int32_t> id = tokenizer_.special(name);
    if (!id) return text(name);
    end_text();
    ids_.push_back(*id);
  }
  void text(std::string_view text) override { text_ += text; }

  std::vector<std::int32_t> take() {
    end_text();
    return std::move(ids_);
  }

 private:
  void end_text() {
    std::vector<std::int32_t> ids = tokenizer_.encode(text_, SpecialTokens::kTreatAsText);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    text_.clear();
  }

  const Tokenizer& tokenizer_;
  std::string text_;  // neighbours without a token between them are one text to the tokenizer
  std::vector<std::int32_t> ids_;
};

class StringSink : public PromptSink {
 public:
  void marker(std::string_view name) override { out += name; }
  void text(std::string_view text) override { out += text; }
  std::string out;
};

std::string known_names() {
  std::string names;
  for (const ChatFamily& family : chat_families()) {
    names += (names.empty() ? "" : ", ") + std::string(family.name);
  }
  return names;
}

}  // namespace

Result<ChatTemplate> ChatTemplate::checked(const Tokenizer& tokenizer, const ChatFamily& family) {
  for (std::string_view marker : family.needed) {
    if (!tokenizer.special(marker)) {
      return fail(ErrorKind::kInvalid, "the chat template '" + std::string(family.name) +
                                           "' needs the token " + std::string(marker) +
                                           ", which the tokenizer does not have");
    }
  }
  ChatTemplate chosen(&family);
  chosen.dsml_ = tokenizer.special(markers::kDsml).value_or(-1);
  static constexpr std::string_view kOfCalls[] = {markers::kCallsBegin, markers::kCallsEnd,
                                                  markers::kCallBegin, markers::kCallEnd,
                                                  markers::kSeparator};
  const auto is_token = [&](std::string_view marker) {
    return tokenizer.special(marker).has_value();
  };
  chosen.tool_tokens_ = std::ranges::all_of(kOfCalls, is_token);
  chosen.thought_tokens_ = is_token(markers::kThinkOpen) && is_token(markers::kThinkClose);
  return chosen;
}

Result<ChatTemplate> ChatTemplate::select(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) {
    if (tokenizer.has_v32_encoder()) return by_name(tokenizer, "deepseek-v3.2");
    return fail(ErrorKind::kInvalid,
                "the model has no chat template (chat_template in tokenizer_config.json, "
                "chat_template.jinja, or encoding/encoding_dsv32.py)");
  }
  std::string hash = sha256_hex(tokenizer.chat_template());
  for (const ChatFamily& family : chat_families()) {
    if (std::ranges::find(family.sha256, hash) != family.sha256.end()) {
      return checked(tokenizer, family);
    }
  }
  return fail(ErrorKind::kInvalid, "the model's chat template (SHA-256 " + hash +
                                       ") is not one of those built in (" + known_names() +
                                       "); if it is a revision of one of them, name that with "
                                       "--chat-template; else its encoder is to be added to "
                                       "worker/text/chat_family.cc");
}

Result<ChatTemplate> ChatTemplate::by_name(const Tokenizer& tokenizer, std::string_view name) {
  for (const ChatFamily& family : chat_families()) {
    if (family.name == name) return checked(tokenizer, family);
  }
  return fail(ErrorKind::kInvalid, "there is no chat template '" + std::string(name) +
                                       "'; those built in are " + known_names());
}

Status ChatTemplate::check(std::span<const ChatMessage> messages,
                           const ChatOptions& options) const {
  if (messages.empty()) return fail(ErrorKind::kInvalid, "messages: at least one is needed");
  const std::string which = "the chat template '" + std::string(family_->name) + "'";
  const bool tools =
      !options.tools.empty() || std::ranges::any_of(messages, [](const ChatMessage& message) {
        return message.role == Role::kTool || !message.tool_calls.empty();
      });
  if (tools && !has_tools()) {
    return fail(ErrorKind::kInvalid,
                "tools: " + which +
                    " has no form for tools; send the request without tools, tool_calls and "
                    "messages of the role 'tool'");
  }
  if (options.thinking && !can_think()) {
    return fail(ErrorKind::kInvalid,
                "thinking: " + which + " has no thought; send the request without it");
  }
  if (!options.continue_final_message) return {};
  if (messages.back().role != Role::kAssistant || !messages.back().tool_calls.empty()) {
    return fail(ErrorKind::kInvalid,
                "continue_final_message: the last message must be the assistant's, without calls "
                "of tools");
  }
  return {};
}

Result<EncodedPrompt> ChatTemplate::encode(const Tokenizer& tokenizer,
                                           std::span<const ChatMessage> messages,
                                           const ChatOptions& options) const {
  if (Status status = check(messages, options); !status) return std::unexpected(status.error());
  if (auto fits = checked(tokenizer, *family_); !fits) return std::unexpected(fits.error());
  IdSink sink(tokenizer);
  Result<bool> in_thought = family_->write(messages, options, sink);
  if (!in_thought) return std::unexpected(in_thought.error());
  return EncodedPrompt{.ids = sink.take(), .starts_in_reasoning = *in_thought};
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 const ChatOptions& options) const {
  StringSink sink;
  if (!check(messages, options) || !family_->write(messages, options, sink)) return {};
  return std::move(sink.out);
}

std::unique_ptr<OutputParser> ChatTemplate::output_parser(const Tokenizer& tokenizer,
                                                          bool starts_in_reasoning,
                                                          bool tools) const {
  return make_output_parser(tokenizer, *family_, starts_in_reasoning, tools);
}

Result<std::string> ChatTemplate::tool_grammar(std::span<const ToolDefinition> tools,
                                               const ToolChoice& choice, bool parallel) const {
  if (!has_tools()) {
    return fail(ErrorKind::kInvalid, "tool_choice: the chat template '" +
                                         std::string(family_->name) + "' has no form for tools");
  }
  return write_tool_grammar(family_->tools,
                            {.calls = tool_tokens_, .thought = thought_tokens_, .dsml = dsml_},
                            tools, choice, parallel);
}

std::string_view ChatTemplate::name() const {
  return family_->name;
}
bool ChatTemplate::has_tools() const {
  return family_->tools != ToolFormat::kNone;
}
bool ChatTemplate::can_think() const {
  return family_->thinking != Thinking::kNever;
}

}  // namespace dsm::text
