#include "worker/server/api_request.h"

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

namespace dsm::server {
namespace {

using nlohmann::json;

// Deep nesting costs stack in whoever walks the value; it is found before anything is built.
bool too_deep(std::string_view body) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

Parsed<json> parse_object(std::string_view body) {
  if (too_deep(body)) {
    return bad_parameter(
        "", "the body is nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
  }
  try {
    json value = json::parse(body);
    if (!value.is_object()) return bad_parameter("", "the body must be a JSON object");
    return value;
  } catch (const json::exception& problem) {
    // The library's text names the place, but may quote the body around it: only the place is told.
    const auto* parse_error = dynamic_cast<const json::parse_error*>(&problem);
    const std::string where =
        parse_error != nullptr ? " (at byte " + std::to_string(parse_error->byte) + ")" : "";
    return bad_parameter("", "the body is not valid JSON" + where);
  }
}

// Reads fields of an object into native values. An absent or null field leaves the value as it is.
// The first error stays; everything after it does nothing.
class Fields {
 public:
  explicit Fields(const json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  const json* find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  void boolean(const char* name, bool& out) {
    if (const json* value = next(name)) {
      if (!value->is_boolean()) return wrong(name, "must be true or false");
      out = value->get<bool>();
    }
  }
  void number(const char* name, double low, double high, float& out) {
    if (const json* value = next(name)) {
      const double read = value->is_number() ? value->get<double>() : std::nan("");
      if (!(read >= low && read <= high)) {
        return wrong(name, "must be a number between " + text(low) + " and " + text(high));
      }
      out = static_cast<float>(read);
    }
  }
  template <typename Int>
  void integer(const char* name, std::int64_t low, std::int64_t high, Int& out) {
    if (const json* value = next(name)) {
      const auto read = whole(*value);
      if (!read || *read < low || *read > high) {
        return wrong(name, "must be a whole number between " + std::to_string(low) + " and " +
                               std::to_string(high));
      }
      out = static_cast<typename Unwrap<Int>::Type>(*read);
    }
  }
  void string(const char* name, std::size_t max_bytes, std::string& out) {
    if (const json* value = next(name)) {
      if (!value->is_string() || value->get_ref<const std::string&>().size() > max_bytes) {
        return wrong(name, "must be a string of at most " + std::to_string(max_bytes) + " bytes");
      }
      out = value->get<std::string>();
    }
  }

  void wrong(const std::string& name, const std::string& what) {
    if (error_) return;
    error_ = bad_parameter(prefix_ + name, "'" + prefix_ + name + "' " + what).error();
  }
  bool failed() const { return error_.has_value(); }
  const std::optional<ApiError>& error() const { return error_; }
  void take_error(const Fields& other) {
    if (!error_) error_ = other.error_;
  }

  static std::optional<std::int64_t> whole(const json& value) {
    if (value.is_number_unsigned() &&
        value.get<std::uint64_t>() >
            static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return std::nullopt;
    }
    if (value.is_number_integer()) return value.get<std::int64_t>();
    return std::nullopt;
  }

 private:
  template <typename T>
  struct Unwrap {
    using Type = T;
  };
  template <typename T>
  struct Unwrap<std::optional<T>> {
    using Type = T;
  };
  const json* next(const char* name) const { return error_ ? nullptr : find(name); }
  static std::string text(double value) { return json(value).dump(); }

  const json& object_;
  std::string prefix_;
  std::optional<ApiError> error_;
};

// A parameter that we know and do not have, and the values with which it asks for nothing.
struct Unsupported {
  const char* name;
  std::array<const char*, 2> neutral = {nullptr, nullptr};  // as JSON texts; null is always neutral
};

constexpr Unsupported kUnsupported[] = {
    {"n", {"1"}},
    {"best_of", {"1"}},
    {"logprobs", {"false"}},
    {"top_logprobs"},
    {"prompt_logprobs"},
    {"presence_penalty", {"0"}},
    {"frequency_penalty", {"0"}},
    {"repetition_penalty", {"1"}},
    {"length_penalty", {"1"}},
    {"logit_bias", {"{}"}},
    {"tools", {"[]"}},
    {"tool_choice", {R"("none")", R"("auto")"}},
    {"functions", {"[]"}},
    {"function_call", {R"("none")", R"("auto")"}},
    {"response_format", {R"({"type":"text"})"}},
    {"modalities", {R"(["text"])"}},
    {"audio"},
    {"web_search_options"},
    {"guided_json"},
    {"guided_regex"},
    {"guided_choice"},
    {"guided_grammar"},
    {"structured_outputs"},
    {"suffix", {R"("")"}},
    {"echo", {"false"}},
    {"use_beam_search", {"false"}},
    {"min_tokens", {"0"}},
    {"bad_words", {"[]"}},
    {"allowed_token_ids"},
    {"truncate_prompt_tokens"},
    {"skip_special_tokens", {"true"}},
    {"continue_final_message", {"false"}},
    {"chat_template"},
    {"documents", {"[]"}},
    {"priority", {"0"}},
};

void refuse_unsupported(Fields& fields) {
  for (const Unsupported& parameter : kUnsupported) {
    const json* value = fields.find(parameter.name);
    if (value == nullptr) continue;
    bool neutral = false;
    for (const char* text : parameter.neutral) {
      neutral = neutral || (text != nullptr && *value == json::parse(text));
    }
    if (!neutral) fields.wrong(parameter.name, "is not supported with this value by this server");
  }
}

void read_stops(Fields& fields, GenerationOptions& options) {
  if (const json* stop = fields.find("stop")) {
    const auto add = [&](const json& value) {
      if (!value.is_string() || value.get_ref<const std::string&>().size() > kMaxStopBytes) {
        fields.wrong("stop",
                     "must hold strings of at most " + std::to_string(kMaxStopBytes) + " bytes");
      } else if (!value.get_ref<const std::string&>().empty()) {
        options.stop.push_back(value.get<std::string>());
      }
    };
    if (stop->is_string()) {
      add(*stop);
    } else if (stop->is_array() && stop->size() <= kMaxStops) {
      for (const json& value : *stop) add(value);
    } else {
      fields.wrong("stop", "must be a string or an array of at most " + std::to_string(kMaxStops) +
                               " strings");
    }
  }
  if (const json* ids = fields.find("stop_token_ids")) {
    if (!ids->is_array() || ids->size() > kMaxStops) {
      return fields.wrong("stop_token_ids", "must be an array of at most " +
                                                std::to_string(kMaxStops) + " token ids");
    }
    for (const json& value : *ids) {
      const auto id = Fields::whole(value);
      if (!id || *id < 0 || *id > std::numeric_limits<engine::TokenId>::max()) {
        return fields.wrong("stop_token_ids", "must hold token ids");
      }
      options.stop_token_ids.push_back(static_cast<engine::TokenId>(*id));
    }
  }
}

void read_options(Fields& fields, const SamplingDefaults& defaults, GenerationOptions& options) {
  constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();
  engine::SamplingParams& sampling = options.sampling;
  sampling.temperature = defaults.temperature;
  sampling.top_p = defaults.top_p;
  sampling.top_k = defaults.top_k;
  fields.number("temperature", 0, 2, sampling.temperature);
  fields.number("top_p", 0, 1, sampling.top_p);
  if (sampling.top_p <= 0) fields.wrong("top_p", "must be above 0 and at most 1");
  fields.number("min_p", 0, 1, sampling.min_p);
  fields.integer("top_k", -1, kMaxInt, sampling.top_k);
  if (sampling.top_k < 0) sampling.top_k = 0;  // -1 is another way to say "off"
  std::optional<std::int64_t> seed;
  fields.integer("seed", std::numeric_limits<std::int64_t>::min(),
                 std::numeric_limits<std::int64_t>::max(), seed);
  if (seed) options.seed = static_cast<std::uint64_t>(*seed);
  fields.integer("max_tokens", 1, kMaxInt, options.max_tokens);
  fields.integer("max_completion_tokens", 1, kMaxInt, options.max_tokens);  // the newer name wins
  fields.boolean("include_stop_str_in_output", options.include_stop_in_output);
  fields.boolean("ignore_eos", options.ignore_eos);
  fields.string("cache_salt", 256, options.cache_salt);
  fields.boolean("stream", options.stream);
  if (const json* stream_options = fields.find("stream_options")) {
    if (!stream_options->is_object()) return fields.wrong("stream_options", "must be an object");
    if (!options.stream) return fields.wrong("stream_options", "is only allowed with stream");
    Fields inner(*stream_options, "stream_options.");
    inner.boolean("include_usage", options.include_usage);
    inner.boolean("continuous_usage_stats", options.continuous_usage);
    fields.take_error(inner);
  }
  read_stops(fields, options);
  refuse_unsupported(fields);
}

// The text of a message: a string, an array of text parts, or nothing for an assistant.
bool read_content(const json& message, const std::string& at, text::Role role, Fields& fields,
                  std::string& out) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (role == text::Role::kAssistant) return true;
    fields.wrong(at + ".content", "is missing");
  } else if (content->is_string()) {
    out = content->get<std::string>();
  } else if (content->is_array()) {
    for (const json& part : *content) {
      const auto type = part.is_object() ? part.find("type") : part.end();
      if (!part.is_object() || type == part.end() || *type != "text") {
        fields.wrong(at + ".content", "may hold parts of type 'text' only");
        return false;
      }
      const auto text = part.find("text");
      if (text == part.end() || !text->is_string()) {
        fields.wrong(at + ".content", "has a part without its 'text'");
        return false;
      }
      out += text->get_ref<const std::string&>();
    }
  } else {
    fields.wrong(at + ".content", "must be a string or an array of text parts");
  }
  return !fields.failed();
}

bool read_message(const json& value, const std::string& at, Fields& fields,
                  text::ChatMessage& message) {
  const auto role = value.is_object() ? value.find("role") : value.end();
  if (!value.is_object() || role == value.end() || !role->is_string()) {
    fields.wrong(at, "must be an object with a 'role'");
    return false;
  }
  const std::string& name = role->get_ref<const std::string&>();
  if (name == "system" || name == "developer") {
    message.role = text::Role::kSystem;
  } else if (name == "user") {
    message.role = text::Role::kUser;
  } else if (name == "assistant") {
    message.role = text::Role::kAssistant;
  } else {
    fields.wrong(at + ".role", "must be system, developer, user or assistant");
    return false;
  }
  for (const char* unsupported : {"tool_calls", "function_call", "prefix", "audio"}) {
    const auto found = value.find(unsupported);
    if (found != value.end() && !found->is_null() && !found->empty() && *found != false) {
      fields.wrong(at + "." + unsupported, "is not supported by this server");
      return false;
    }
  }
  return read_content(value, at, message.role, fields, message.content);
}

void read_messages(Fields& fields, std::vector<text::ChatMessage>& messages) {
  const json* values = fields.find("messages");
  if (values == nullptr || !values->is_array() || values->empty() ||
      values->size() > kMaxMessages) {
    return fields.wrong("messages",
                        "must be an array of 1 to " + std::to_string(kMaxMessages) + " messages");
  }
  for (std::size_t i = 0; i < values->size(); ++i) {
    text::ChatMessage message;
    if (!read_message((*values)[i], "messages[" + std::to_string(i) + "]", fields, message)) return;
    messages.push_back(std::move(message));
  }
}

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
      fields.wrong("thinking", R"(must be {"type": "enabled"} or {"type": "disabled"})");
    }
  }
  if (const json* arguments = fields.find("chat_template_kwargs")) {
    if (!arguments->is_object()) return fields.wrong("chat_template_kwargs", "must be an object");
    for (const char* name : {"thinking", "enable_thinking"}) {
      Fields inner(*arguments, "chat_template_kwargs.");
      std::optional<bool> value;
      if (inner.find(name) != nullptr) inner.boolean(name, value.emplace());
      fields.take_error(inner);
      if (value) say(*value, "chat_template_kwargs");
    }
  }
  if (const json* effort = fields.find("reasoning_effort")) {
    if (!effort->is_string()) return fields.wrong("reasoning_effort", "must be a string");
    constexpr std::array<const char*, 7> kEfforts = {"none", "minimal", "low", "medium",
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

void read_model(Fields& fields, std::string& model) {
  if (fields.find("model") == nullptr) fields.wrong("model", "is missing");
  fields.string("model", 512, model);
}

}  // namespace

Parsed<ChatRequest> parse_chat(std::string_view body, const SamplingDefaults& defaults) {
  const auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields fields(*object);
  ChatRequest request;
  read_model(fields, request.model);
  if (!fields.failed()) read_messages(fields, request.messages);
  read_options(fields, defaults, request.options);
  fields.boolean("add_generation_prompt", request.template_options.add_generation_prompt);
  read_thinking(fields, defaults, request.template_options.thinking);
  if (fields.failed()) return std::unexpected(*fields.error());
  return request;
}

Parsed<CompletionRequest> parse_completion(std::string_view body, const SamplingDefaults& defaults,
                                           std::int32_t vocab_size) {
  const auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields fields(*object);
  CompletionRequest request;
  read_model(fields, request.model);
  read_options(fields, defaults, request.options);
  if (!fields.failed()) read_prompts(fields, vocab_size, request.prompts);
  if (fields.failed()) return std::unexpected(*fields.error());
  return request;
}

Result<SamplingDefaults> parse_generation_config(std::string_view text) {
  SamplingDefaults defaults;
  if (text.empty()) return defaults;
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return fail(ErrorKind::kInvalid, "generation_config.json is not a JSON object");
  }
  Fields fields(object);
  bool sample = true;
  fields.boolean("do_sample", sample);
  fields.number("temperature", 0, 2, defaults.temperature);
  fields.number("top_p", 0, 1, defaults.top_p);
  fields.integer("top_k", 0, std::numeric_limits<std::int32_t>::max(), defaults.top_k);
  if (fields.failed()) {
    return fail(ErrorKind::kInvalid, "generation_config.json: " + fields.error()->message);
  }
  if (!sample) defaults.temperature = 0;
  if (defaults.top_p <= 0) defaults.top_p = 1;
  return defaults;
}

}  // namespace dsm::server
