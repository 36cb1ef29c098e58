#include "worker/server/inference_request.h"

#include <utility>

#include "worker/server/request_body.h"

namespace dsm::server {
namespace {

bool read_flag(const Json& object, const char* name, bool otherwise, Complaint& complaint) {
  const Json* value = field(object, name);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    complaint.say(name, "must be true or false");
    return otherwise;
  }
  return value->get<bool>();
}

std::string read_model(const Json& object, const std::string& otherwise, Complaint& complaint) {
  return field(object, "model") == nullptr ? otherwise
                                           : read_string(object, "model", "model", complaint);
}

}  // namespace

Parsed<ChatRequest> parse_inference(std::string_view body, const std::string& model,
                                    const SamplingDefaults& defaults) {
  const auto object = parse_ordered(body);
  if (!object) return std::unexpected(object.error());
  Complaint complaint;
  if (field(*object, "prompt") == nullptr) complaint.say("prompt", "is missing");
  std::string prompt = read_string(*object, "prompt", "prompt", complaint);
  Json chat = {{"model", read_model(*object, model, complaint)}};
  if (complaint) return std::unexpected(complaint.error());
  copy_fields(*object,
              {"max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "stream",
               "thinking", "reasoning_effort", "max_time_ms"},
              chat);
  auto request = parse_chat_fields(std::move(chat), {}, defaults);
  if (request) request->messages = {{.role = text::Role::kUser, .content = std::move(prompt)}};
  return request;
}

Parsed<TokenizeRequest> parse_tokenize(std::string_view body, const std::string& model,
                                       const SamplingDefaults& defaults) {
  const auto object = parse_ordered(body);
  if (!object) return std::unexpected(object.error());
  Complaint complaint;
  TokenizeRequest request;
  request.model = read_model(*object, model, complaint);
  request.add_special_tokens = read_flag(*object, "add_special_tokens", true, complaint);
  request.return_token_strs = read_flag(*object, "return_token_strs", false, complaint);
  const bool is_chat = field(*object, "messages") != nullptr;
  if (is_chat == (field(*object, "prompt") != nullptr)) {
    complaint.say("prompt", "or 'messages' must be given, and not both");
  }
  if (!is_chat) request.prompt = read_string(*object, "prompt", "prompt", complaint);
  if (complaint) return std::unexpected(complaint.error());
  if (is_chat) {
    Json chat = {{"model", request.model}};
    copy_fields(*object,
                {"messages", "add_generation_prompt", "continue_final_message", "tools",
                 "chat_template_kwargs", "thinking", "reasoning_effort"},
                chat);
    auto read = parse_chat(dump(chat), defaults);
    if (!read) return std::unexpected(read.error());
    request.prompt = std::move(*read);
  }
  return request;
}

Parsed<DetokenizeRequest> parse_detokenize(std::string_view body, const std::string& model,
                                           std::int32_t vocab_size) {
  const auto object = parse_ordered(body);
  if (!object) return std::unexpected(object.error());
  Complaint complaint;
  DetokenizeRequest request;
  request.model = read_model(*object, model, complaint);
  const Json* tokens = field(*object, "tokens");
  const std::string wanted = "must be an array of at most " + std::to_string(kMaxDetokenize) +
                             " token ids from 0 to " + std::to_string(vocab_size - 1);
  if (tokens == nullptr || !tokens->is_array() || tokens->size() > kMaxDetokenize) {
    complaint.say("tokens", wanted);
  } else {
    for (const Json& token : *tokens) {
      if (!token.is_number_integer() || token < 0 || token >= vocab_size) {
        complaint.say("tokens", wanted);
        break;
      }
      request.tokens.push_back(token.get<engine::TokenId>());
    }
  }
  if (complaint) return std::unexpected(complaint.error());
  return request;
}

}  // namespace dsm::server
