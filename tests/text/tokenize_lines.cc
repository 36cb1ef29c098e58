// The tokenizer as a filter, so that a script can compare it with another one: one JSON object per
// line in, one out.
//
//   {"text": "..."}                      -> {"ids": [...]}        special tokens in the text are
//   special tokens
//   {"text": "...", "special": false}    -> {"ids": [...]}        they are text
//   {"ids": [...]}                       -> {"text": "..."}       with special tokens
//   {"messages": [{"role", "content"}], "thinking": true, "generate": true} -> {"text": "...",
//   "ids": [...]}
//
// Usage: tokenize_lines TOKENIZER_JSON
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace {

using dsm::text::SpecialTokens;
using nlohmann::json;

std::vector<dsm::text::ChatMessage> messages_of(const json& list) {
  std::vector<dsm::text::ChatMessage> messages;
  for (const json& message : list) {
    std::string role = message.at("role");
    messages.push_back({role == "system" ? dsm::text::Role::kSystem
                        : role == "user" ? dsm::text::Role::kUser
                                         : dsm::text::Role::kAssistant,
                        message.at("content")});
  }
  return messages;
}

json answer(const dsm::text::Tokenizer& tokenizer, const json& line) {
  if (line.contains("messages")) {
    dsm::Result<dsm::text::ChatTemplate> chat = dsm::text::ChatTemplate::select(tokenizer);
    if (!chat) return {{"error", chat.error().message}};
    auto messages = messages_of(line.at("messages"));
    dsm::text::ChatOptions options{.thinking = line.value("thinking", false),
                                   .add_generation_prompt = line.value("generate", true)};
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
    std::cout << answer(*tokenizer, json::parse(line)).dump() << "\n";
  return 0;
}
