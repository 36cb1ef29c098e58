#include "worker/server/answer_json.h"

#include <algorithm>
#include <cmath>

#include "worker/text/utf8.h"

namespace dsm::server {

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json parse_or(std::string_view text, Json otherwise) {
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_discarded() ? std::move(otherwise) : value;
}

Json usage_object(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          // DeepSeek's names of the same, which metering clients read.
          {"prompt_cache_hit_tokens", usage.cached_tokens},
          {"prompt_cache_miss_tokens", usage.prompt_tokens - usage.cached_tokens}};
}

std::string token_text(const text::Tokenizer& tokenizer, engine::TokenId token) {
  const std::string_view bytes = tokenizer.piece(token);
  if (text::is_valid_utf8(bytes)) return std::string(bytes);
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string escaped;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    escaped += "\\x";
    escaped += kDigits[byte >> 4];
    escaped += kDigits[byte & 15];
  }
  return escaped;
}

double finite_logprob(float logprob) {
  constexpr double kLowest = -9999.0;
  return std::isfinite(logprob) ? std::max<double>(logprob, kLowest) : kLowest;
}

Json prompt_logprobs_array(const text::Tokenizer& tokenizer,
                           const std::vector<engine::PositionLogprobs>& positions) {
  Json all = Json::array({nullptr});
  for (const engine::PositionLogprobs& position : positions) {
    Json one = Json::object();
    const auto entry = [&](const engine::TokenLogprob& token) {
      Json value = {{"logprob", finite_logprob(token.logprob)}};
      value["decoded_token"] = token_text(tokenizer, token.token);
      return value;
    };
    one[std::to_string(position.chosen.token)] = entry(position.chosen);
    for (std::size_t i = 0; i < position.top.size(); ++i) {
      Json value = entry(position.top[i]);
      value["rank"] = i + 1;
      one[std::to_string(position.top[i].token)] = std::move(value);
    }
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace dsm::server
