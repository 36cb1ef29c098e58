// Bodies of the simple endpoints: POST /v1/inference, /tokenize and /detokenize.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "worker/server/api_error.h"
#include "worker/server/api_request.h"

namespace dsm::server {

// {"prompt", "max_tokens", ...}: one question, put to the model as a user's message. `model` may be
// left out: it is `model` then.
Parsed<ChatRequest> parse_inference(std::string_view body, const std::string& model,
                                    const SamplingDefaults& defaults);

// {"prompt", "add_special_tokens"} or {"messages", ...} as a chat has them.
struct TokenizeRequest {
  std::variant<std::string, ChatRequest> prompt;
  std::string model;
  bool add_special_tokens = true;
  bool return_token_strs = false;
};
Parsed<TokenizeRequest> parse_tokenize(std::string_view body, const std::string& model,
                                       const SamplingDefaults& defaults);

struct DetokenizeRequest {
  std::string model;
  std::vector<engine::TokenId> tokens;
};
inline constexpr std::size_t kMaxDetokenize = 1 << 20;
Parsed<DetokenizeRequest> parse_detokenize(std::string_view body, const std::string& model,
                                           std::int32_t vocab_size);

}  // namespace dsm::server
