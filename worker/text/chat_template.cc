#include "worker/text/chat_template.h"

#include <openssl/evp.h>

#include <array>
#include <functional>
#include <optional>
#include <utility>

namespace dsm::text {

// The family of DeepSeek-V3.1: the prompt is BOS, then each message's marker and text in order; a
// system message has no marker; an earlier answer stands behind a closed (empty) thought and ends
// with EOS; the generation prompt opens the thought or closes it at once. The markers are tokens of
// their own.
struct ChatTemplate::Style {
  std::string_view name;
  std::string_view sha256;  // of the template's text, hexadecimal
  std::string_view bos;
  std::string_view eos;
  std::string_view user;
  std::string_view assistant;
  std::string_view think_open;
  std::string_view think_close;

  std::array<std::string_view, 6> markers() const {
    return {bos, eos, user, assistant, think_open, think_close};
  }

  // The prompt in order, as markers and text.
  void walk(std::span<const ChatMessage> messages, const ChatOptions& options,
            const std::function<void(std::string_view)>& marker,
            const std::function<void(std::string_view)>& text) const {
    marker(bos);
    for (const ChatMessage& message : messages) {
      if (message.role == Role::kUser) marker(user);
      if (message.role == Role::kAssistant) {
        marker(assistant);
        marker(think_close);
      }
      text(message.content);
      if (message.role == Role::kAssistant) marker(eos);
    }
    if (options.add_generation_prompt) {
      marker(assistant);
      marker(options.thinking ? think_open : think_close);
    }
  }

  static std::span<const Style> all();
};

std::span<const ChatTemplate::Style> ChatTemplate::Style::all() {
  static constexpr Style kStyles[] = {
      {"deepseek-tiny", "f2693897da9e256fb982f28a0d9f8d7c332eb4874fe191d91adeca0c34e36612",
       "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
       "<think>", "</think>"},
  };
  return kStyles;
}

namespace {

std::string sha256_hex(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned char byte : digest) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

}  // namespace

Result<ChatTemplate> ChatTemplate::select(const Tokenizer& tokenizer) {
  if (tokenizer.chat_template().empty()) {
    return fail(ErrorKind::kInvalid,
                "the model has no chat template (chat_template in tokenizer_config.json, or "
                "chat_template.jinja)");
  }
  std::string hash = sha256_hex(tokenizer.chat_template());
  for (const Style& style : Style::all()) {
    if (style.sha256 != hash) continue;
    for (std::string_view marker : style.markers()) {
      if (!tokenizer.special(marker)) {
        return fail(ErrorKind::kInvalid, "the chat template '" + std::string(style.name) +
                                             "' needs the token " + std::string(marker) +
                                             ", which the tokenizer does not have");
      }
    }
    return ChatTemplate(&style);
  }
  std::string known;
  for (const Style& style : Style::all())
    known += (known.empty() ? "" : ", ") + std::string(style.name);
  return fail(ErrorKind::kInvalid, "the model's chat template (SHA-256 " + hash +
                                       ") is not one of those built in (" + known +
                                       "); use a model with a built-in template, or add its "
                                       "encoder to worker/text/chat_template.cc");
}

Result<EncodedPrompt> ChatTemplate::encode(const Tokenizer& tokenizer,
                                           std::span<const ChatMessage> messages,
                                           const ChatOptions& options) const {
  if (messages.empty()) return fail(ErrorKind::kInvalid, "messages: at least one is needed");
  EncodedPrompt prompt;
  std::optional<std::string_view> missing;
  std::string text;  // neighbours without a marker between them are one text to the tokenizer
  auto end_text = [&] {
    std::vector<std::int32_t> ids = tokenizer.encode(text, SpecialTokens::kTreatAsText);
    prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
    text.clear();
  };
  style_->walk(
      messages, options,
      [&](std::string_view marker) {
        end_text();
        if (std::optional<std::int32_t> id = tokenizer.special(marker)) {
          prompt.ids.push_back(*id);
        } else {
          missing = marker;
        }
      },
      [&](std::string_view content) { text += content; });
  end_text();
  if (missing) {
    return fail(ErrorKind::kInvalid,
                "the tokenizer does not have the token " + std::string(*missing));
  }
  prompt.starts_in_reasoning = options.add_generation_prompt && options.thinking;
  return prompt;
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 const ChatOptions& options) const {
  std::string out;
  auto append = [&](std::string_view part) { out += part; };
  style_->walk(messages, options, append, append);
  return out;
}

std::string_view ChatTemplate::name() const {
  return style_->name;
}

}  // namespace dsm::text
