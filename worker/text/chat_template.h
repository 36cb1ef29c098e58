// A conversation to prompt tokens. There is no template engine: the encoder of each known template
// is written here in C++ (chat_family.cc has the table) and chosen by the SHA-256 of the template's
// text, so a model whose template is not known is refused at start-up instead of being prompted
// wrongly. A checkpoint of DeepSeek-V3.2 has no template's text but a program that makes its
// prompts, encoding/encoding_dsv32.py; the file's presence chooses the encoder.
//
// Structure cannot be forged: the markers of the template become their tokens by id, and what a
// message says is encoded with SpecialTokens::kTreatAsText. A user who types "<｜Assistant｜>"
// sends those letters, not that token (rendering to a string and encoding it, as HF does, would
// make it the token). For messages without such look-alikes the ids equal HF's for the rendered
// string. A marker that the tokenizer does not have as a token is text in both.
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
#include "worker/text/output_parser.h"
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
  // The last message is an assistant's and is gone on with: no end marker, no new turn. With
  // reasoning and no content it is the thought that goes on.
  bool continue_final_message = false;
  std::vector<ToolDefinition> tools = {};
};

// Which tools an answer calls.
struct ToolChoice {
  // kAuto: none or any; the arguments of those that are strict match their parameters.
  enum class Mode { kRequired, kNamed, kAuto };
  Mode mode = Mode::kRequired;
  std::string name = {};  // of kNamed
};

struct EncodedPrompt {
  std::vector<std::int32_t> ids;
  bool starts_in_reasoning =
      false;  // the prompt ends with the opening marker: the output begins inside the thought
};

struct ChatFamily;

class ChatTemplate {
 public:
  // The encoder for tokenizer.chat_template(), or the one that the checkpoint's own program stands
  // for. kInvalid: no template, an unknown one (with its hash and what can be done), or a marker of
  // it that the tokenizer does not have.
  static Result<ChatTemplate> select(const Tokenizer& tokenizer);
  // The encoder of this name, whatever the checkpoint says: for an operator who knows that an
  // unknown text is but a revision of a known one.
  static Result<ChatTemplate> by_name(const Tokenizer& tokenizer, std::string_view name);

  // kInvalid when there is no message, or the conversation asks for what the template has no form
  // for.
  Result<EncodedPrompt> encode(const Tokenizer& tokenizer, std::span<const ChatMessage> messages,
                               const ChatOptions& options) const;
  // The prompt as one string, as the Jinja template would render it; for tests and for people.
  // Empty for what encode() refuses.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options) const;

  // Takes one output apart; `tools`: the request has tools, so calls are looked for. `tokenizer`
  // must outlive the parser.
  std::unique_ptr<OutputParser> output_parser(const Tokenizer& tokenizer, bool starts_in_reasoning,
                                              bool tools) const;

  // A grammar that the answer must match so that it calls tools, in llguidance's dialect of Lark
  // (tool_grammar.h says which parts of it are used). With kAuto it is one of the whole output, the
  // thought included. kInvalid: the template has no form for calls, there is no such tool, or its
  // parameters are no schema.
  Result<std::string> tool_grammar(std::span<const ToolDefinition> tools, const ToolChoice& choice,
                                   bool parallel) const;

  std::string_view name() const;
  // Whether it has a form for tools, and for a thought.
  bool has_tools() const;
  bool can_think() const;

 private:
  explicit ChatTemplate(const ChatFamily* family) : family_(family) {}
  static Result<ChatTemplate> checked(const Tokenizer& tokenizer, const ChatFamily& family);
  Status check(std::span<const ChatMessage> messages, const ChatOptions& options) const;

  const ChatFamily* family_;     // static table
  std::int32_t dsml_ = -1;       // the token of the mark in V3.2's tags; -1: it is text
  bool tool_tokens_ = false;     // the markers of calls are tokens
  bool thought_tokens_ = false;  // those of the thought are
};

}  // namespace dsm::text
