#include "worker/server/api_request.h"

#include <array>

#include "worker/server/request_parts.h"

namespace dsm::server {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxSuffix = 16 << 20;  // a body is not larger

// Three ways to ask for a thought before the answer. Those that say it outright must agree;
// reasoning_effort counts where neither of them is given: "none" is no thought, any other is one.
void read_thinking(Fields& fields, const SamplingDefaults& defaults, bool& thinking) {
  std::optional<bool> said;
  const auto say = [&](bool value, const char* name) {
    if (said && *said != value) fields.wrong(name, "contradicts another switch for thinking");
    said = value;
  };
  if (const json* value = fields.find("thinking")) {
    const json type = value->is_object() ? value->value("type", json()) : json();
    if (type == "enabled" || type == "disabled") {
      say(type == "enabled", "thinking");
    } else {
      return fields.wrong("thinking", R"(must be {"type": "enabled"} or {"type": "disabled"})");
    }
  }
  if (auto arguments = fields.object("chat_template_kwargs")) {
    for (const char* name : {"thinking", "enable_thinking"}) {
      std::optional<bool> value;
      if (arguments->find(name) != nullptr) arguments->boolean(name, value.emplace());
      if (value) say(*value, "chat_template_kwargs");
    }
  }
  if (const json* effort = fields.find("reasoning_effort")) {
    if (!effort->is_string()) return fields.wrong("reasoning_effort", "must be a string");
    static constexpr std::array<const char*, 7> kEfforts = {"none", "minimal", "low", "medium",
                                                            "high", "xhigh",   "max"};
    bool known = false;
    for (const char* name : kEfforts) known = known || *effort == name;
    if (!known) {
      return fields.wrong("reasoning_effort",
                          "must be one of none, minimal, low, medium, high, xhigh, max");
    }
    if (!said) said = *effort != "none";
  }
  thinking = said.value_or(defaults.thinking);
}

std::optional<std::vector<engine::TokenId>> token_ids(const json& values, std::int32_t vocab_size) {
  std::vector<engine::TokenId> ids;
  ids.reserve(values.size());
  for (const json& value : values) {
    const auto id = Fields::whole(value);
    if (!id || *id < 0 || *id >= vocab_size) return std::nullopt;
    ids.push_back(static_cast<engine::TokenId>(*id));
  }
  return ids;
}

// A string, token ids, or an array of several strings or of several token id arrays.
void read_prompts(Fields& fields, std::int32_t vocab_size,
                  std::vector<CompletionRequest::Prompt>& prompts) {
  const json* value = fields.find("prompt");
  const auto wrong = [&](const std::string& what) { fields.wrong("prompt", what); };
  const auto add_ids = [&](const json& ids) {
    auto read = token_ids(ids, vocab_size);
    if (!read || read->empty()) {
      wrong("holds token ids that are not whole numbers from 0 to " +
            std::to_string(vocab_size - 1));
      return;
    }
    prompts.emplace_back(std::move(*read));
  };
  if (value == nullptr) return wrong("is missing");
  if (value->is_string()) {
    prompts.emplace_back(value->get<std::string>());
  } else if (!value->is_array() || value->empty()) {
    wrong("must be a string, token ids, or an array of these");
  } else if (value->front().is_number()) {
    add_ids(*value);
  } else if (value->size() > kMaxPrompts) {
    wrong("may hold at most " + std::to_string(kMaxPrompts) + " prompts");
  } else {
    for (const json& one : *value) {
      if (one.is_string()) {
        prompts.emplace_back(one.get<std::string>());
      } else if (one.is_array()) {
        add_ids(one);
      } else {
        wrong("must be a string, token ids, or an array of these");
      }
    }
  }
}

// The text behind the gap, which a model fills in between. It belongs to one prompt of text.
void read_suffix(Fields& fields, CompletionRequest& request) {
  if (fields.find("suffix") == nullptr) return;
  std::string suffix;
  fields.string("suffix", kMaxSuffix, suffix);
  if (suffix.empty()) return;
  if (request.prompts.size() != 1 || !std::holds_alternative<std::string>(request.prompts[0])) {
    return fields.wrong("suffix", "is only allowed with one prompt that is a string");
  }
  if (request.echo) return fields.wrong("suffix", "cannot be combined with echo");
  request.suffix = std::move(suffix);
}

}  // namespace

Parsed<ChatRequest> parse_chat(std::string_view body, const SamplingDefaults& defaults) {
  const auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  std::optional<ApiError> error;
  Fields fields(*object, body, error);
  ChatRequest request;
  read_model(fields, request.model);
  if (!error) read_messages(fields, request);
  read_options(fields, BodyKind::kChat, defaults, request.options);
  if (!error) read_tools(fields, request);
  read_thinking(fields, defaults, request.template_options.thinking);
  if (error) return std::unexpected(*error);
  return request;
}

Parsed<CompletionRequest> parse_completion(std::string_view body, const SamplingDefaults& defaults,
                                           std::int32_t vocab_size) {
  const auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  std::optional<ApiError> error;
  Fields fields(*object, body, error);
  CompletionRequest request;
  read_model(fields, request.model);
  read_options(fields, BodyKind::kCompletion, defaults, request.options);
  if (!error) read_prompts(fields, vocab_size, request.prompts);
  fields.boolean("echo", request.echo);
  if (!error) read_suffix(fields, request);
  if (request.prompts.size() * static_cast<std::size_t>(request.options.n) > kMaxChoices) {
    fields.wrong("n", "times the number of prompts may be at most " + std::to_string(kMaxChoices));
  }
  if (error) return std::unexpected(*error);
  return request;
}

}  // namespace dsm::server
