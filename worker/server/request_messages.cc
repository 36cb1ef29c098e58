#include <algorithm>

#include "worker/server/request_parts.h"

namespace dsm::server {
namespace {

using nlohmann::json;
using text::ChatMessage;
using text::Role;

constexpr std::size_t kMaxId = 256;

// Fields of messages that would change what the model reads.
constexpr const char* kUnsupported[] = {"function_call", "audio"};

bool is_neutral(const json& value) {
  const bool no_text = value.is_string() && value.get_ref<const std::string&>().empty();
  return value.empty() || value == false || no_text;
}

std::optional<Role> role_of(std::string_view name) {
  if (name == "system" || name == "developer") return Role::kSystem;
  if (name == "user") return Role::kUser;
  if (name == "assistant") return Role::kAssistant;
  if (name == "tool") return Role::kTool;
  return std::nullopt;
}

// The text of a message: a string, an array of text parts, or nothing for an assistant.
void read_content(Fields& message, Role role, std::string& out) {
  const json* content = message.find("content");
  if (content == nullptr) {
    if (role != Role::kAssistant) message.wrong("content", "is missing");
  } else if (content->is_string()) {
    out = content->get<std::string>();
  } else if (content->is_array()) {
    for (const json& part : *content) {
      const auto type = part.is_object() ? part.find("type") : part.end();
      if (!part.is_object() || type == part.end() || *type != "text") {
        return message.wrong("content", "may hold parts of type 'text' only");
      }
      const auto text = part.find("text");
      if (text == part.end() || !text->is_string()) {
        return message.wrong("content", "has a part without its 'text'");
      }
      out += text->get_ref<const std::string&>();
    }
  } else {
    message.wrong("content", "must be a string or an array of text parts");
  }
}

// The calls that an assistant made, as this server hands them out. Whether the arguments are JSON
// is not asked: a client must be able to send back what the model wrote.
void read_calls(Fields& message, std::vector<text::ToolCall>& calls) {
  for (Fields& call : message.objects("tool_calls", kMaxToolCalls)) {
    std::string type = "function";
    call.string("type", 64, type);
    if (type != "function") call.wrong("type", "must be function");
    text::ToolCall made;
    call.string("id", kMaxId, made.id);
    auto function = call.object("function");
    if (!function) return call.wrong("function", "is missing");
    function->string("name", kMaxToolName, made.name);
    if (made.name.empty()) function->wrong("name", "is missing");
    const json* arguments = function->find("arguments");
    if (arguments == nullptr) {
      made.arguments = "{}";
    } else if (arguments->is_object()) {
      made.arguments = function->raw("arguments");
    } else if (arguments->is_string()) {
      made.arguments = arguments->get<std::string>();
    } else {
      function->wrong("arguments", "must be a JSON text or an object");
    }
    if (call.failed()) return;
    calls.push_back(std::move(made));
  }
}

// The calls that a message at the end of `messages` would answer: those of the assistant's message
// that only answers of tools follow.
const std::vector<text::ToolCall>* open_calls(const std::vector<ChatMessage>& messages) {
  for (auto message = messages.rbegin(); message != messages.rend(); ++message) {
    if (message->role == Role::kTool) continue;
    return message->role == Role::kAssistant && !message->tool_calls.empty() ? &message->tool_calls
                                                                             : nullptr;
  }
  return nullptr;
}

void read_tool_answer(Fields& message, const std::vector<ChatMessage>& before, ChatMessage& out) {
  message.string("tool_call_id", kMaxId, out.tool_call_id);
  const auto* calls = open_calls(before);
  if (calls == nullptr) {
    message.wrong("role", "must not be tool here: no message with tool_calls stands before it");
  } else if (std::ranges::find(*calls, out.tool_call_id, &text::ToolCall::id) == calls->end()) {
    message.wrong("tool_call_id", "is not the id of a call in the message that it answers");
  }
}

void read_message(Fields& message, const std::vector<ChatMessage>& before, ChatMessage& out,
                  bool& prefix) {
  std::string name;
  message.string("role", 64, name);
  const auto role = role_of(name);
  if (!role) return message.wrong("role", "must be system, developer, user, assistant or tool");
  out.role = *role;
  for (const char* unsupported : kUnsupported) {
    const json* value = message.find(unsupported);
    if (value != nullptr && !is_neutral(*value)) {
      message.wrong(unsupported, "is not supported by this server");
    }
  }
  read_content(message, out.role, out.content);
  message.boolean("prefix", prefix);
  if (out.role == Role::kTool) read_tool_answer(message, before, out);
  if (out.role == Role::kAssistant) {
    // DeepSeek's name, and vLLM's newer one.
    for (const char* reasoning : {"reasoning", "reasoning_content"}) {
      const json* value = message.find(reasoning);
      if (value == nullptr) continue;
      if (!value->is_string()) return message.wrong(reasoning, "must be a string");
      out.reasoning = value->get<std::string>();
    }
    read_calls(message, out.tool_calls);
  } else {
    const json* calls = message.find("tool_calls");
    if (calls != nullptr && !is_neutral(*calls)) {
      message.wrong("tool_calls", "is only allowed in a message of the assistant");
    }
    if (prefix) message.wrong("prefix", "is only allowed in a message of the assistant");
  }
}

// The last message is gone on with when it is a `prefix` or when continue_final_message says so.
void read_continuation(Fields& fields, bool prefix, ChatRequest& request) {
  text::ChatOptions& options = request.template_options;
  bool continues = false;
  fields.boolean("continue_final_message", continues);
  bool new_turn = true;
  fields.boolean("add_generation_prompt", new_turn);
  if (fields.failed()) return;
  if (continues || prefix) {
    const ChatMessage& last = request.messages.back();
    if (last.role != Role::kAssistant) {
      return fields.wrong("continue_final_message",
                          "needs a message of the assistant at the end of messages");
    }
    if (!last.tool_calls.empty()) {
      return fields.wrong("continue_final_message", "cannot go on behind tool_calls");
    }
    if (new_turn && fields.find("add_generation_prompt") != nullptr) {
      return fields.wrong("add_generation_prompt",
                          "must be false when the last message is gone on with");
    }
    options.continue_final_message = true;
    options.add_generation_prompt = false;
  } else {
    options.add_generation_prompt = new_turn;
  }
}

}  // namespace

void read_messages(Fields& fields, ChatRequest& request) {
  const json* values = fields.find("messages");
  if (values == nullptr || !values->is_array() || values->empty() ||
      values->size() > kMaxMessages) {
    return fields.wrong("messages",
                        "must be an array of 1 to " + std::to_string(kMaxMessages) + " messages");
  }
  std::vector<Fields> messages = fields.objects("messages", kMaxMessages);
  bool prefix = false;
  for (Fields& message : messages) {
    if (prefix) fields.wrong("messages", "has a prefix that is not the last message");
    ChatMessage read;
    read_message(message, request.messages, read, prefix);
    if (fields.failed()) return;
    request.messages.push_back(std::move(read));
  }
  if (!fields.failed()) read_continuation(fields, prefix, request);
}

}  // namespace dsm::server
