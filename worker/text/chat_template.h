// A conversation to prompt tokens. There is no template engine: the encoder of each known template
// is written here in C++ and chosen by the SHA-256 of the template's text, so a model whose
// template is not known is refused at start-up instead of being prompted wrongly.
//
// Structure cannot be forged: the markers of the template become their tokens by id, and what a
// message says is encoded with SpecialTokens::kTreatAsText. A user who types "<｜Assistant｜>"
// sends those letters, not that token (rendering to a string and encoding it, as HF does, would
// make it the token). For messages without such look-alikes the ids equal HF's for the rendered
// string.
//
// Threading: immutable; every method is const and may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "worker/text/tokenizer.h"

namespace dsm::text {

enum class Role { kSystem, kUser, kAssistant, kTool };

// A call that an assistant made. `arguments` is the JSON text as the model wrote it.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;
};

struct ChatMessage {
  Role role = Role::kUser;
  std::string content;                    // of an assistant: the answer without its reasoning
  std::string reasoning = {};             // of an assistant: kept where the template keeps it
  std::vector<ToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};          // of a tool's answer
};

struct ToolDefinition {
  std::string name;
  std::string description;
  std::string parameters;  // JSON Schema as the client wrote it; empty: none
  bool strict = false;
};

struct ChatOptions {
  bool thinking = false;
  bool add_generation_prompt = true;  // end with the beginning of the assistant's turn
  // The last message is an assistant's and is gone on with: no end marker, no new turn.
  bool continue_final_message = false;
  std::vector<ToolDefinition> tools = {};
};

struct EncodedPrompt {
  std::vector<std::int32_t> ids;
  bool starts_in_reasoning =
      false;  // the prompt ends with the opening marker: the output begins inside the thought
};

class ChatTemplate {
 public:
  // The encoder for tokenizer.chat_template(). kInvalid: no template, an unknown one (with its hash
  // and what can be done), or a marker of it that the tokenizer does not have.
  static Result<ChatTemplate> select(const Tokenizer& tokenizer);

  // kInvalid when there is no message.
  Result<EncodedPrompt> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                               const ChatOptions& options) const;
  // The prompt as one string, as the Jinja template would render it; for tests and for people.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options) const;

  std::string_view name() const;

 private:
  struct Style;
  explicit ChatTemplate(const Style* style) : style_(style) {}
  const Style* style_;  // static table
};

}  // namespace dsm::text
