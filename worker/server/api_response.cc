#include "worker/server/api_response.h"

#include <nlohmann/json.hpp>

namespace dsm::server {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
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

Json head_object(const AnswerHead& head, bool is_chunk) {
  const char* object = "text_completion";
  if (head.kind == ApiKind::kChat) object = is_chunk ? "chat.completion.chunk" : "chat.completion";
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

Json model_object(const std::string& model, std::int64_t created, int max_model_len) {
  return {{"id", model},
          {"object", "model"},
          {"created", created},
          {"owned_by", "deepseek-operator"},
          {"max_model_len", max_model_len}};
}

}  // namespace

std::string answer_json(const AnswerHead& head, const std::vector<Choice>& choices,
                        const Usage& usage) {
  Json json = head_object(head, false);
  Json list = Json::array();
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const Choice& choice = choices[i];
    Json one = {{"index", i}};
    if (head.kind == ApiKind::kChat) {
      Json message = {{"role", "assistant"}};
      if (choice.has_reasoning) message["reasoning_content"] = choice.reasoning;
      message["content"] = choice.content;
      one["message"] = std::move(message);
    } else {
      one["text"] = choice.content;
    }
    one["logprobs"] = nullptr;
    one["finish_reason"] = choice.finish_reason;
    list.push_back(std::move(one));
  }
  json["choices"] = std::move(list);
  json["usage"] = usage_object(usage);
  return dump(json);
}

std::string chunk_json(const AnswerHead& head, const ChoiceDelta& delta, bool with_usage,
                       const std::optional<Usage>& usage) {
  Json json = head_object(head, true);
  Json one = {{"index", delta.index}};
  if (head.kind == ApiKind::kChat) {
    Json fields = Json::object();
    if (delta.role) {
      fields["role"] = "assistant";
      fields["content"] = "";
    }
    if (!delta.reasoning.empty()) fields["reasoning_content"] = delta.reasoning;
    if (!delta.content.empty()) fields["content"] = delta.content;
    one["delta"] = std::move(fields);
  } else {
    one["text"] = delta.content;
  }
  one["logprobs"] = nullptr;
  if (delta.finish_reason.empty()) {
    one["finish_reason"] = nullptr;
  } else {
    one["finish_reason"] = delta.finish_reason;
  }
  json["choices"] = Json::array({std::move(one)});
  if (usage) {
    json["usage"] = usage_object(*usage);
  } else if (with_usage) {
    json["usage"] = nullptr;
  }
  return dump(json);
}

std::string usage_chunk_json(const AnswerHead& head, const Usage& usage) {
  Json json = head_object(head, true);
  json["choices"] = Json::array();
  json["usage"] = usage_object(usage);
  return dump(json);
}

std::string sse_event(const std::string& data) {
  return "data: " + data + "\n\n";
}

std::string models_json(const std::string& model, std::int64_t created, int max_model_len) {
  const Json json = {{"object", "list"},
                     {"data", Json::array({model_object(model, created, max_model_len)})}};
  return dump(json);
}

std::string model_json(const std::string& model, std::int64_t created, int max_model_len) {
  return dump(model_object(model, created, max_model_len));
}

}  // namespace dsm::server
