// The tokenizer as a filter, so that a script can compare it with another one: one JSON object per
// line in, one out.
//
//   {"text": "..."}                      -> {"ids": [...]}        special tokens in the text are
//   special tokens
//   {"text": "...", "special": false}    -> {"ids": [...]}        they are text
//   {"ids": [...]}                       -> {"text": "..."}       with special tokens
//   {"messages": [{"role", "content", "reasoning", "tool_calls": [{"name", "arguments"}]}],
//    "template": "deepseek-v3.1", "thinking": true, "generate": true, "continue": false,
//    "tools": [{"name", "description", "parameters"}]}
//                                        -> {"text": "...", "ids": [...]}
// Without "template" the checkpoint's own is used. What is refused gives {"error": "..."}.
//
// Usage: tokenize_lines TOKENIZER_JSON
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace {

using dsm::text::SpecialTokens;
using nlohmann::ordered_json;

dsm::text::Role role_of(const std::string& role) {
  if (role == "system") return dsm::text::Role::kSystem;
  if (role == "user") return dsm::text::Role::kUser;
  if (role == "tool") return dsm::text::Role::kTool;
  return dsm::text::Role::kAssistant;
}

std::vector<dsm::text::ChatMessage> messages_of(const ordered_json& list) {
  std::vector<dsm::text::ChatMessage> messages;
  for (const ordered_json& message : list) {
    messages.push_back({.role = role_of(message.at("role")),
                        .content = message.value("content", ""),
                        .reasoning = message.value("reasoning", "")});
    for (const ordered_json& call : message.value("tool_calls", ordered_json::array())) {
      messages.back().tool_calls.push_back(
          {.id = {}, .name = call.at("name"), .arguments = call.at("arguments")});
    }
  }
  return messages;
}

std::vector<dsm::text::ToolDefinition> tools_of(const ordered_json& list) {
  std::vector<dsm::text::ToolDefinition> tools;
  for (const ordered_json& tool : list) {
    tools.push_back(
        {.name = tool.at("name"),
         .description = tool.value("description", ""),
         .parameters = tool.contains("parameters") ? tool.at("parameters").dump() : ""});
  }
  return tools;
}

ordered_json answer(const dsm::text::Tokenizer& tokenizer, const ordered_json& line) {
  if (line.contains("messages")) {
    dsm::Result<dsm::text::ChatTemplate> chat =
        line.contains("template")
            ? dsm::text::ChatTemplate::by_name(tokenizer, line.at("template").get<std::string>())
            : dsm::text::ChatTemplate::select(tokenizer);
    if (!chat) return {{"error", chat.error().message}};
    auto messages = messages_of(line.at("messages"));
    dsm::text::ChatOptions options{.thinking = line.value("thinking", false),
                                   .add_generation_prompt = line.value("generate", true),
                                   .continue_final_message = line.value("continue", false),
                                   .tools = tools_of(line.value("tools", ordered_json::array()))};
    auto prompt = chat->encode(tokenizer, messages, options);
    if (!prompt) return {{"error", prompt.error().message}};
    return {{"text", chat->render(messages, options)}, {"ids", prompt->ids}};
  }
  if (line.contains("ids")) {
    return {{"text", tokenizer.decode(line.at("ids").get<std::vector<std::int32_t>>(), false)}};
  }
  SpecialTokens special =
      line.value("special", true) ? SpecialTokens::kAllow : SpecialTokens::kTreatAsText;
  return {{"ids", tokenizer.encode(line.at("text").get<std::string>(), special)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenize_lines TOKENIZER_JSON\n";
    return 2;
  }
  dsm::Result<dsm::text::Tokenizer> tokenizer = dsm::text::Tokenizer::load(argv[1]);
  if (!tokenizer) {
    std::cerr << tokenizer.error().message << "\n";
    return 1;
  }
  std::string line;
  while (std::getline(std::cin, line))
    std::cout << answer(*tokenizer, ordered_json::parse(line)).dump() << "\n";
  return 0;
}
