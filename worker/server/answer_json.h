// What the writers of JSON answers share. Inside this folder only: it brings the JSON library
// along.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "worker/engine/request.h"
#include "worker/server/api_response.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

using Json = nlohmann::ordered_json;

// One line of valid UTF-8, whatever the value's strings hold.
std::string dump(const Json& json);
// A text that should be JSON as a value; `otherwise` when it is not.
Json parse_or(std::string_view text, Json otherwise);

// OpenAI's usage with DeepSeek's names of the same beside it.
Json usage_object(const Usage& usage);

// A token as a text. Bytes that are no whole code points are shown as escapes (\xE4\xBD), as
// OpenAI's API shows them.
std::string token_text(const text::Tokenizer& tokenizer, engine::TokenId token);
// JSON has no infinity: a token that cannot come has the logarithm that OpenAI's API gives it.
double finite_logprob(float logprob);

// vLLM's form of `prompt_logprobs`: null for the first token, then {"<id>": {"logprob", "rank",
// "decoded_token"}} for each one. A chosen token that is not among the likeliest has no rank.
Json prompt_logprobs_array(const text::Tokenizer& tokenizer,
                           const std::vector<engine::PositionLogprobs>& positions);

}  // namespace dsm::server
