#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "worker/server/request_parts.h"

namespace dsm::server {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMinInt = std::numeric_limits<std::int32_t>::min();
constexpr std::size_t kMaxLogitBias = 1024;

// A parameter that we know and do not have, and the values with which it asks for nothing.
struct Unsupported {
  const char* name;
  std::array<const char*, 2> neutral = {nullptr, nullptr};  // as JSON texts; null is always neutral
};

constexpr Unsupported kUnsupported[] = {
    {"length_penalty", {"1"}},
    {"functions", {"[]"}},
    {"function_call", {R"("none")", R"("auto")"}},
    {"modalities", {R"(["text"])"}},
    {"audio"},
    {"web_search_options"},
    {"use_beam_search", {"false"}},
    {"bad_words", {"[]"}},
    {"allowed_token_ids"},
    {"truncate_prompt_tokens"},
    {"skip_special_tokens", {"true"}},
    {"include_reasoning", {"true"}},
    {"return_token_ids", {"false"}},
    {"return_tokens_as_token_ids", {"false"}},
    {"chat_template"},
    {"documents", {"[]"}},
    {"guided_whitespace_pattern"},
    {"logits_processors", {"[]"}},
    {"stop_regex"},
    {"kv_transfer_params"},
};
// What only the other endpoint has.
constexpr Unsupported kNotInChat[] = {
    {"echo", {"false"}},
    {"suffix", {R"("")"}},
};
constexpr Unsupported kNotInCompletion[] = {
    {"tools", {"[]"}},
    {"tool_choice", {R"("none")", R"("auto")"}},
    {"top_logprobs"},
    {"continue_final_message", {"false"}},
};

template <std::size_t kCount>
void refuse(Fields& fields, const Unsupported (&parameters)[kCount], const char* why) {
  for (const Unsupported& parameter : parameters) {
    const json* value = fields.find(parameter.name);
    if (value == nullptr) continue;
    bool neutral = false;
    for (const char* text : parameter.neutral) {
      neutral = neutral || (text != nullptr && *value == json::parse(text));
    }
    if (!neutral) fields.wrong(parameter.name, why);
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
      if (!id || *id < 0 || *id > kMaxInt) {
        return fields.wrong("stop_token_ids", "must hold token ids");
      }
      options.stop_token_ids.push_back(static_cast<engine::TokenId>(*id));
    }
  }
  fields.boolean("include_stop_str_in_output", options.include_stop_in_output);
  fields.boolean("ignore_eos", options.ignore_eos);
}

// {"token id": what is added to its logit}, in the order of the ids.
void read_logit_bias(Fields& fields, std::vector<engine::LogitBias>& biases) {
  const json* value = fields.find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object() || value->size() > kMaxLogitBias) {
    return fields.wrong("logit_bias", "must be an object of at most " +
                                          std::to_string(kMaxLogitBias) + " token ids");
  }
  for (const auto& [key, bias] : value->items()) {
    engine::TokenId token = -1;
    const auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), token);
    // Written in one way only, so that no token can come twice.
    if (problem != std::errc() || token < 0 || std::to_string(token) != key) {
      return fields.wrong("logit_bias", "must have token ids as its names");
    }
    const double read = bias.is_number() ? bias.get<double>() : std::nan("");
    if (!(read >= -100 && read <= 100)) {
      return fields.wrong("logit_bias", "must have numbers between -100 and 100 as its values");
    }
    biases.push_back({.token = token, .bias = static_cast<float>(read)});
  }
  std::ranges::sort(biases, {}, &engine::LogitBias::token);
}

void read_sampling(Fields& fields, const SamplingDefaults& defaults, GenerationOptions& options) {
  engine::SamplingParams& sampling = options.sampling;
  sampling.temperature = defaults.temperature;
  sampling.top_p = defaults.top_p;
  sampling.top_k = defaults.top_k;
  sampling.min_p = defaults.min_p;
  sampling.repetition_penalty = defaults.repetition_penalty;
  fields.number("temperature", 0, 2, sampling.temperature);
  fields.number("top_p", 0, 1, sampling.top_p);
  if (sampling.top_p <= 0) fields.wrong("top_p", "must be above 0 and at most 1");
  fields.number("min_p", 0, 1, sampling.min_p);
  fields.integer("top_k", -1, kMaxInt, sampling.top_k);
  if (sampling.top_k < 0) sampling.top_k = 0;  // -1 is another way to say "off"
  fields.number("presence_penalty", -2, 2, sampling.presence_penalty);
  fields.number("frequency_penalty", -2, 2, sampling.frequency_penalty);
  fields.number("repetition_penalty", 0, 2, sampling.repetition_penalty);
  if (sampling.repetition_penalty <= 0) {
    fields.wrong("repetition_penalty", "must be above 0 and at most 2");
  }
  read_logit_bias(fields, sampling.logit_bias);
  std::optional<std::int64_t> seed;
  fields.integer("seed", std::numeric_limits<std::int64_t>::min(),
                 std::numeric_limits<std::int64_t>::max(), seed);
  if (seed) options.seed = static_cast<std::uint64_t>(*seed);
}

// In a chat a switch and a number, in a text completion a number.
void read_logprobs(Fields& fields, BodyKind kind, GenerationOptions& options) {
  int& logprobs = options.sampling.logprobs;
  if (kind == BodyKind::kCompletion) {
    fields.integer("logprobs", 0, engine::kMaxLogprobs, logprobs);
  } else {
    bool wanted = false;
    fields.boolean("logprobs", wanted);
    if (wanted) logprobs = 0;
    if (fields.find("top_logprobs") != nullptr) {
      int top = 0;
      fields.integer("top_logprobs", 0, engine::kMaxLogprobs, top);
      if (wanted) {
        logprobs = top;
      } else if (top > 0) {
        fields.wrong("top_logprobs", "is only allowed with logprobs: true");
      }
    }
  }
  fields.integer("prompt_logprobs", 0, engine::kMaxLogprobs, options.prompt_logprobs);
}

void read_lengths(Fields& fields, GenerationOptions& options) {
  fields.integer("max_tokens", 1, kMaxInt, options.max_tokens);
  fields.integer("max_completion_tokens", 1, kMaxInt, options.max_tokens);  // the newer name wins
  fields.integer("min_tokens", 0, kMaxInt, options.min_tokens);
  if (options.max_tokens && options.min_tokens > *options.max_tokens) {
    fields.wrong("min_tokens", "is more than the most tokens that the answer may have");
  }
  fields.integer("n", 1, kMaxN, options.n);
  int best_of = options.n;
  fields.integer("best_of", 1, kMaxN, best_of);
  if (best_of != options.n) {
    fields.wrong("best_of", "must be equal to n: this server does not choose among more");
  }
}

void read_stream(Fields& fields, GenerationOptions& options) {
  fields.boolean("stream", options.stream);
  auto inner = fields.object("stream_options");
  if (inner) {
    if (!options.stream) return fields.wrong("stream_options", "is only allowed with stream");
    inner->boolean("include_usage", options.include_usage);
    inner->boolean("continuous_usage_stats", options.continuous_usage);
  }
  if (options.stream && options.prompt_logprobs >= 0) {
    fields.wrong("prompt_logprobs", "is not allowed with stream");
  }
}

}  // namespace

void read_model(Fields& fields, std::string& model) {
  if (fields.find("model") == nullptr) fields.wrong("model", "is missing");
  fields.string("model", 512, model);
}

void read_options(Fields& fields, BodyKind kind, const SamplingDefaults& defaults,
                  GenerationOptions& options) {
  read_sampling(fields, defaults, options);
  read_lengths(fields, options);
  read_logprobs(fields, kind, options);
  read_stops(fields, options);
  read_stream(fields, options);
  read_format(fields, options);
  fields.integer("priority", kMinInt, kMaxInt, options.priority);
  std::optional<std::int64_t> max_time;
  fields.integer("max_time_ms", 1, kMaxTimeMs, max_time);
  if (max_time) options.max_time = Millis(*max_time);
  fields.string("cache_salt", 256, options.cache_salt);
  refuse(fields, kUnsupported, "is not supported with this value by this server");
  if (kind == BodyKind::kChat) {
    refuse(fields, kNotInChat, "is for text completions, not for a chat");
  } else {
    refuse(fields, kNotInCompletion, "is for a chat, not for text completions");
  }
}

Parsed<std::optional<Millis>> parse_time_limit(std::string_view header) {
  if (header.empty()) return std::nullopt;
  std::int64_t limit = 0;
  const auto [end, problem] = std::from_chars(header.data(), header.data() + header.size(), limit);
  if (problem != std::errc() || end != header.data() + header.size() || limit < 1 ||
      limit > kMaxTimeMs) {
    return bad_parameter("X-Request-Timeout-Ms",
                         "the header X-Request-Timeout-Ms must be a whole number between 1 and " +
                             std::to_string(kMaxTimeMs));
  }
  return Millis(limit);
}

}  // namespace dsm::server
