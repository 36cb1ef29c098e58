#include "worker/server/messages_request.h"

#include <utility>

#include "worker/server/request_body.h"

namespace dsm::server {
namespace {

using text::ChatMessage;
using text::Role;

void read_tool_result(const Json& block, const std::string& at, Complaint& complaint,
                      std::vector<ChatMessage>& messages) {
  ChatMessage answer{.role = Role::kTool, .content = ""};
  if (const Json* content = field(block, "content")) {
    answer.content = read_text(*content, at + ".content", {"text"}, complaint);
  }
  answer.tool_call_id = read_string(block, "tool_use_id", at + ".tool_use_id", complaint);
  if (!has_call(messages, answer.tool_call_id)) {
    complaint.say(at + ".tool_use_id", "answers no tool_use before it");
  }
  messages.push_back(std::move(answer));
}

void read_tool_use(const Json& block, const std::string& at, Complaint& complaint,
                   ChatMessage& turn) {
  text::ToolCall call{.id = read_string(block, "id", at + ".id", complaint),
                      .name = read_string(block, "name", at + ".name", complaint),
                      .arguments = "{}"};
  if (call.id.empty()) complaint.say(at + ".id", "is missing");
  if (call.name.empty()) complaint.say(at + ".name", "is missing");
  if (const Json* input = field(block, "input")) {
    if (!input->is_object()) complaint.say(at + ".input", "must be an object");
    call.arguments = dump(*input);
  }
  turn.tool_calls.push_back(std::move(call));
}

// A block of a user's message: texts next to each other are one message, results are their own.
void read_user_block(const Json& block, const std::string& type, const std::string& at,
                     Complaint& complaint, bool& joins, std::vector<ChatMessage>& messages) {
  if (type == "tool_result") {
    joins = false;
    return read_tool_result(block, at, complaint, messages);
  }
  if (type != "text") {
    return complaint.say(at + ".type", "must be text or tool_result: this server reads text only");
  }
  if (!std::exchange(joins, true)) messages.push_back({.role = Role::kUser, .content = ""});
  messages.back().content += read_string(block, "text", at + ".text", complaint);
}

void read_assistant_block(const Json& block, const std::string& type, const std::string& at,
                          Complaint& complaint, ChatMessage& turn) {
  if (type == "text") {
    turn.content += read_string(block, "text", at + ".text", complaint);
  } else if (type == "thinking") {
    turn.reasoning += read_string(block, "thinking", at + ".thinking", complaint);
  } else if (type == "tool_use") {
    read_tool_use(block, at, complaint, turn);
  } else if (type != "redacted_thinking") {  // of another server: nothing that could be read
    complaint.say(at + ".type", "must be text, thinking or tool_use");
  }
}

void read_message(const Json& message, const std::string& at, Complaint& complaint,
                  std::vector<ChatMessage>& messages) {
  if (!message.is_object()) return complaint.say(at, "must be an object");
  const std::string role = read_string(message, "role", at + ".role", complaint);
  if (role != "user" && role != "assistant") {
    return complaint.say(at + ".role", "must be user or assistant; `system` is a field of its own");
  }
  const bool user = role == "user";
  const Json* content = field(message, "content");
  if (content != nullptr && content->is_string()) {
    messages.push_back(
        {.role = user ? Role::kUser : Role::kAssistant, .content = content->get<std::string>()});
    return;
  }
  if (content == nullptr || !content->is_array()) {
    return complaint.say(at + ".content", "must be a string or an array of blocks");
  }
  if (!user) messages.push_back({.role = Role::kAssistant, .content = ""});
  if (user && content->empty()) messages.push_back({.role = Role::kUser, .content = ""});
  bool joins = false;
  for (std::size_t i = 0; i < content->size() && !complaint; ++i) {
    const Json& block = (*content)[i];
    const std::string block_at = at + ".content[" + std::to_string(i) + "]";
    if (!block.is_object()) return complaint.say(block_at, "must be an object");
    const std::string type = read_string(block, "type", block_at + ".type", complaint);
    if (user) {
      read_user_block(block, type, block_at, complaint, joins, messages);
    } else {
      read_assistant_block(block, type, block_at, complaint, messages.back());
    }
  }
}

void read_conversation(const Json& body, Complaint& complaint, std::vector<ChatMessage>& messages) {
  if (const Json* system = field(body, "system")) {
    messages.push_back(
        {.role = Role::kSystem, .content = read_text(*system, "system", {"text"}, complaint)});
  }
  const Json* values = field(body, "messages");
  if (values == nullptr || !values->is_array() || values->empty() ||
      values->size() > kMaxMessages) {
    return complaint.say("messages",
                         "must be an array of 1 to " + std::to_string(kMaxMessages) + " messages");
  }
  for (std::size_t i = 0; i < values->size() && !complaint; ++i) {
    read_message((*values)[i], "messages[" + std::to_string(i) + "]", complaint, messages);
  }
}

Json chat_tools(const Json& tools, Complaint& complaint) {
  Json all = Json::array();
  if (!tools.is_array()) {
    complaint.say("tools", "must be an array");
    return all;
  }
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const Json* type = field(tools[i], "type");
    if (type != nullptr && *type != "custom") {
      complaint.say("tools[" + std::to_string(i) + "].type",
                    "must be custom: this server has no tools of its own");
      return all;
    }
    Json function = Json::object();
    copy_fields(tools[i], {"name", "description", "strict"}, function);
    if (const Json* schema = field(tools[i], "input_schema")) function["parameters"] = *schema;
    all.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return all;
}

void read_tool_choice(const Json& choice, Complaint& complaint, Json& chat) {
  const Json* type = field(choice, "type");
  const Json* name = field(choice, "name");
  if (type != nullptr && (*type == "auto" || *type == "none")) {
    chat["tool_choice"] = *type;
  } else if (type != nullptr && *type == "any") {
    chat["tool_choice"] = "required";
  } else if (type != nullptr && *type == "tool" && name != nullptr) {
    chat["tool_choice"] = {{"type", "function"}, {"function", {{"name", *name}}}};
  } else {
    return complaint.say("tool_choice.type", "must be auto, any, none, or tool with a 'name'");
  }
  if (const Json* one = field(choice, "disable_parallel_tool_use"); one && *one == true) {
    chat["parallel_tool_calls"] = false;
  }
}

void read_thinking(const Json& thinking, Complaint& complaint, Json& chat) {
  const Json* type = field(thinking, "type");
  if (type == nullptr || (*type != "enabled" && *type != "disabled" && *type != "adaptive")) {
    return complaint.say("thinking.type", "must be enabled, disabled or adaptive");
  }
  if (const Json* budget = field(thinking, "budget_tokens")) {
    if (!budget->is_number_integer() || *budget < 1) {
      complaint.say("thinking.budget_tokens", "must be a whole number from 1 up");
    }
  }
  chat["thinking"] = {{"type", *type == "disabled" ? "disabled" : "enabled"}};
}

void read_output_config(const Json& config, Complaint& complaint, Json& chat) {
  if (!config.is_object()) return complaint.say("output_config", "must be an object");
  if (const Json* effort = field(config, "effort")) chat["reasoning_effort"] = *effort;
  const Json* format = field(config, "format");
  if (format == nullptr) return;
  const Json* type = field(*format, "type");
  const Json* schema = field(*format, "schema");
  if (type == nullptr || *type != "json_schema" || schema == nullptr) {
    return complaint.say("output_config.format", "must be of type json_schema with a 'schema'");
  }
  chat["response_format"] = {{"type", "json_schema"},
                             {"json_schema", {{"name", "answer"}, {"schema", *schema}}}};
}

}  // namespace

Parsed<ChatRequest> parse_messages(std::string_view body, const SamplingDefaults& defaults,
                                   bool generates) {
  const auto object = parse_ordered(body);
  if (!object) return std::unexpected(object.error());
  Complaint complaint;
  complaint.refuse(*object, "mcp_servers", {Json::array()});
  complaint.refuse(*object, "container");
  if (generates && field(*object, "max_tokens") == nullptr) {
    complaint.say("max_tokens", "is missing");
  }
  std::vector<ChatMessage> messages;
  if (!complaint) read_conversation(*object, complaint, messages);
  Json chat = Json::object();
  copy_fields(*object,
              {"model", "max_tokens", "temperature", "top_p", "top_k", "stream", "seed",
               "cache_salt", "priority", "chat_template_kwargs", "max_time_ms"},
              chat);
  if (const Json* stops = field(*object, "stop_sequences")) chat["stop"] = *stops;
  if (const Json* tools = field(*object, "tools")) chat["tools"] = chat_tools(*tools, complaint);
  if (const Json* choice = field(*object, "tool_choice")) {
    read_tool_choice(*choice, complaint, chat);
  }
  if (const Json* thinking = field(*object, "thinking")) {
    read_thinking(*thinking, complaint, chat);
  }
  if (const Json* config = field(*object, "output_config")) {
    read_output_config(*config, complaint, chat);
  }
  if (complaint) return std::unexpected(complaint.error());
  auto request = parse_chat_fields(std::move(chat),
                                   {{"stop", "stop_sequences"},
                                    {"response_format", "output_config.format"},
                                    {"reasoning_effort", "output_config.effort"}},
                                   defaults);
  if (!request) return std::unexpected(request.error());
  // An answer that the client has begun is gone on with.
  if (messages.back().role == Role::kAssistant && messages.back().tool_calls.empty()) {
    request->template_options.continue_final_message = true;
    request->template_options.add_generation_prompt = false;
  }
  request->messages = std::move(messages);
  return request;
}

}  // namespace dsm::server
