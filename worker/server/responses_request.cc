#include "worker/server/responses_request.h"

#include <utility>

#include "worker/server/request_body.h"

namespace dsm::server {
namespace {

using text::ChatMessage;
using text::Role;

// An item of the conversation that is somebody's text.
void read_message(const Json& item, const std::string& at, Complaint& complaint,
                  std::vector<ChatMessage>& messages) {
  const std::string role = read_string(item, "role", at + ".role", complaint);
  const Json* content = field(item, "content");
  if (content == nullptr) return complaint.say(at + ".content", "is missing");
  std::string text =
      read_text(*content, at + ".content", {"input_text", "output_text", "text"}, complaint);
  if (role == "assistant") {
    // A thought before it is a part of the same turn; another text is not.
    ChatMessage& turn = assistant_turn(messages);
    if (turn.content.empty() && turn.tool_calls.empty()) {
      turn.content = std::move(text);
    } else {
      messages.push_back({.role = Role::kAssistant, .content = std::move(text)});
    }
  } else if (role == "user") {
    messages.push_back({.role = Role::kUser, .content = std::move(text)});
  } else if (role == "system" || role == "developer") {
    messages.push_back({.role = Role::kSystem, .content = std::move(text)});
  } else {
    complaint.say(at + ".role", "must be user, assistant, system or developer");
  }
}

void read_reasoning(const Json& item, const std::string& at, Complaint& complaint,
                    std::vector<ChatMessage>& messages) {
  ChatMessage thought{.role = Role::kAssistant, .content = ""};
  if (const Json* content = field(item, "content")) {
    thought.reasoning = read_text(*content, at + ".content", {"reasoning_text"}, complaint);
  } else if (const Json* summary = field(item, "summary")) {
    thought.reasoning = read_text(*summary, at + ".summary", {"summary_text"}, complaint);
  }
  messages.push_back(std::move(thought));
}

void read_call(const Json& item, const std::string& at, Complaint& complaint,
               std::vector<ChatMessage>& messages) {
  text::ToolCall call{.id = read_string(item, "call_id", at + ".call_id", complaint),
                      .name = read_string(item, "name", at + ".name", complaint),
                      .arguments = read_string(item, "arguments", at + ".arguments", complaint)};
  if (call.name.empty()) complaint.say(at + ".name", "is missing");
  if (call.id.empty()) complaint.say(at + ".call_id", "is missing");
  assistant_turn(messages).tool_calls.push_back(std::move(call));
}

void read_call_output(const Json& item, const std::string& at, Complaint& complaint,
                      std::vector<ChatMessage>& messages) {
  const Json* output = field(item, "output");
  if (output == nullptr) return complaint.say(at + ".output", "is missing");
  ChatMessage answer{
      .role = Role::kTool,
      .content = read_text(*output, at + ".output", {"input_text", "output_text"}, complaint)};
  answer.tool_call_id = read_string(item, "call_id", at + ".call_id", complaint);
  if (!has_call(messages, answer.tool_call_id)) {
    complaint.say(at + ".call_id", "answers no function_call before it");
  }
  messages.push_back(std::move(answer));
}

void read_input(const Json& body, Complaint& complaint, std::vector<ChatMessage>& messages) {
  if (field(body, "instructions") != nullptr) {
    messages.push_back({.role = Role::kSystem,
                        .content = read_string(body, "instructions", "instructions", complaint)});
  }
  const Json* input = field(body, "input");
  if (input == nullptr) return complaint.say("input", "is missing");
  if (input->is_string()) {
    messages.push_back({.role = Role::kUser, .content = input->get<std::string>()});
    return;
  }
  if (!input->is_array() || input->empty() || input->size() > kMaxMessages) {
    return complaint.say(
        "input", "must be a string or an array of 1 to " + std::to_string(kMaxMessages) + " items");
  }
  for (std::size_t i = 0; i < input->size() && !complaint; ++i) {
    const Json& item = (*input)[i];
    const std::string at = "input[" + std::to_string(i) + "]";
    if (!item.is_object()) return complaint.say(at, "must be an object");
    std::string type = read_string(item, "type", at + ".type", complaint);
    if (type.empty()) type = "message";
    if (type == "message") {
      read_message(item, at, complaint, messages);
    } else if (type == "reasoning") {
      read_reasoning(item, at, complaint, messages);
    } else if (type == "function_call") {
      read_call(item, at, complaint, messages);
    } else if (type == "function_call_output") {
      read_call_output(item, at, complaint, messages);
    } else {
      complaint.say(at + ".type",
                    "must be message, reasoning, function_call or function_call_output");
    }
  }
}

// The chat's tools have what is here flat in an object of its own.
Json chat_tools(const Json& tools, Complaint& complaint) {
  Json all = Json::array();
  if (!tools.is_array()) {
    complaint.say("tools", "must be an array");
    return all;
  }
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const Json* type = field(tools[i], "type");
    if (type == nullptr || *type != "function") {
      complaint.say("tools[" + std::to_string(i) + "].type",
                    "must be function: this server has no tools of its own");
      return all;
    }
    Json function = Json::object();
    copy_fields(tools[i], {"name", "description", "parameters", "strict"}, function);
    all.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return all;
}

Json chat_tool_choice(const Json& choice, Complaint& complaint) {
  if (choice.is_string()) return choice;
  const Json* type = field(choice, "type");
  const Json* name = field(choice, "name");
  if (type == nullptr || *type != "function" || name == nullptr) {
    complaint.say("tool_choice",
                  R"(must be "none", "auto", "required" or {"type": "function", "name": ...})");
    return nullptr;
  }
  return {{"type", "function"}, {"function", {{"name", *name}}}};
}

Json chat_format(const Json& body, Complaint& complaint) {
  const Json* text = field(body, "text");
  if (text == nullptr) return nullptr;
  if (!text->is_object()) complaint.say("text", "must be an object");
  const Json* format = field(*text, "format");
  if (format == nullptr) return nullptr;
  const Json* type = field(*format, "type");
  if (type == nullptr || *type != "json_schema") return *format;
  Json schema = Json::object();
  copy_fields(*format, {"name", "description", "schema", "strict"}, schema);
  return {{"type", "json_schema"}, {"json_schema", std::move(schema)}};
}

Parsed<ChatRequest> read_options(const Json& body, const SamplingDefaults& defaults,
                                 Complaint& complaint) {
  Json chat = Json::object();
  copy_fields(body,
              {"model",
               "temperature",
               "top_p",
               "top_k",
               "min_p",
               "seed",
               "presence_penalty",
               "frequency_penalty",
               "repetition_penalty",
               "logit_bias",
               "stop",
               "stop_token_ids",
               "ignore_eos",
               "min_tokens",
               "cache_salt",
               "priority",
               "chat_template_kwargs",
               "thinking",
               "parallel_tool_calls",
               "stream"},
              chat);
  if (const Json* limit = field(body, "max_output_tokens")) chat["max_completion_tokens"] = *limit;
  if (const Json* tools = field(body, "tools")) chat["tools"] = chat_tools(*tools, complaint);
  if (const Json* choice = field(body, "tool_choice")) {
    chat["tool_choice"] = chat_tool_choice(*choice, complaint);
  }
  if (const Json* reasoning = field(body, "reasoning")) {
    if (!reasoning->is_object()) complaint.say("reasoning", "must be an object");
    if (const Json* effort = field(*reasoning, "effort")) chat["reasoning_effort"] = *effort;
  }
  chat["response_format"] = chat_format(body, complaint);
  if (complaint) return std::unexpected(complaint.error());
  return parse_chat_fields(std::move(chat),
                           {{"max_completion_tokens", "max_output_tokens"},
                            {"response_format", "text.format"},
                            {"reasoning_effort", "reasoning.effort"}},
                           defaults);
}

std::string make_echo(const Json& body, const GenerationOptions& options) {
  const auto given = [&](const char* name, Json otherwise) {
    const Json* value = field(body, name);
    return value == nullptr ? std::move(otherwise) : *value;
  };
  return dump({{"instructions", given("instructions", nullptr)},
               {"max_output_tokens", given("max_output_tokens", nullptr)},
               {"metadata", given("metadata", Json::object())},
               {"parallel_tool_calls", given("parallel_tool_calls", true)},
               {"reasoning", given("reasoning", {{"effort", nullptr}, {"summary", nullptr}})},
               {"temperature", options.sampling.temperature},
               {"text", given("text", {{"format", {{"type", "text"}}}})},
               {"tool_choice", given("tool_choice", "auto")},
               {"tools", given("tools", Json::array())},
               {"top_p", options.sampling.top_p},
               {"truncation", "disabled"}});
}

}  // namespace

Parsed<ResponsesRequest> parse_responses(std::string_view body, const SamplingDefaults& defaults) {
  const auto object = parse_ordered(body);
  if (!object) return std::unexpected(object.error());
  Complaint complaint;
  complaint.refuse(*object, "store", {false});
  for (const char* name : {"previous_response_id", "conversation", "prompt"}) {
    complaint.refuse(*object, name);
  }
  complaint.refuse(*object, "background", {false});
  complaint.refuse(*object, "truncation", {"disabled"});
  complaint.refuse(*object, "top_logprobs", {0});
  // Thoughts are plain text here, so nothing is lost when they are not encrypted too.
  complaint.refuse(*object, "include",
                   {Json::array(), Json::array({"reasoning.encrypted_content"})});
  if (const Json* metadata = field(*object, "metadata"); metadata && !metadata->is_object()) {
    complaint.say("metadata", "must be an object");
  }
  std::vector<ChatMessage> messages;
  if (!complaint) read_input(*object, complaint, messages);
  if (complaint) return std::unexpected(complaint.error());
  auto chat = read_options(*object, defaults, complaint);
  if (!chat) return std::unexpected(chat.error());
  chat->messages = std::move(messages);
  std::string echo = make_echo(*object, chat->options);
  return ResponsesRequest{.chat = std::move(*chat), .echo = std::move(echo)};
}

}  // namespace dsm::server
