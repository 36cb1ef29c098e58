#include "worker/server/spec_builder.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/random.h"
#include "worker/server/plain_output.h"
#include "worker/text/fim.h"

namespace dsm::server {
namespace {

constexpr std::int32_t kDefaultCompletionTokens = 16;  // as OpenAI documents it for /v1/completions
constexpr const char* kThinkClose = "</think>";

std::uint64_t random_seed() {
  return std::stoull(random_hex(8), nullptr, 16);
}

// What the engine must keep a sequence to, and which field asked for it.
struct Constraint {
  std::optional<grammar::GrammarSpec> grammar;
  std::string param;
  std::optional<engine::TokenId> after;  // the grammar begins behind this token
};

class Builder {
 public:
  Builder(const ServedModel& model, std::shared_ptr<const engine::Adapter> adapter,
          const GenerationOptions& options, const RequestMeta& meta)
      : model_(model),
        adapter_(std::move(adapter)),
        options_(options),
        seed_(options.seed.value_or(random_seed())) {
    if (options.max_time || meta.time_limit) {
      deadline_ = meta.arrived + std::min(options.max_time.value_or(Millis::max()),
                                          meta.time_limit.value_or(Millis::max()));
    }
  }

  // What of the options depends on the model.
  std::optional<ApiError> check() const {
    const auto outside = [&](engine::TokenId token) { return token >= model_.vocab_size; };
    const char* wrong = nullptr;
    if (std::ranges::any_of(options_.sampling.logit_bias, outside, &engine::LogitBias::token)) {
      wrong = "logit_bias";
    } else if (std::ranges::any_of(options_.stop_token_ids, outside)) {
      wrong = "stop_token_ids";
    }
    if (wrong == nullptr) return std::nullopt;
    return bad_parameter(wrong, "'" + std::string(wrong) + "' holds a token id of more than " +
                                    std::to_string(model_.vocab_size - 1) +
                                    ", the highest of this model")
        .error();
  }

  // A prompt that cannot fit is not worth encoding.
  std::optional<ApiError> check_length(std::size_t least_tokens, const char* param) const {
    if (least_tokens < static_cast<std::size_t>(model_.max_model_len)) return std::nullopt;
    return ApiError{.status = 400,
                    .message = "This model's context holds " +
                               std::to_string(model_.max_model_len) +
                               " tokens, at least one of them for the answer; the prompt has at "
                               "least " +
                               std::to_string(least_tokens) + ".",
                    .param = param,
                    .code = "context_length_exceeded",
                    .retry_after_s = 0};
  }

  // The sequences of one prompt, `n` of them. `prompt_logprobs` as in GenerateRequest.
  Parsed<std::vector<engine::GenerateRequest>> sequences(const std::vector<engine::TokenId>& prompt,
                                                         const char* param,
                                                         const Constraint& constraint,
                                                         std::int32_t default_max_tokens,
                                                         int prompt_logprobs) const {
    if (prompt.empty()) return bad_parameter(param, std::string("'") + param + "' has no tokens");
    if (auto error = check_length(prompt.size(), param)) return std::unexpected(std::move(*error));
    engine::GenerateRequest one;
    one.prompt = prompt;
    const std::int32_t wanted = options_.max_tokens.value_or(default_max_tokens);
    if (options_.min_tokens > wanted) {
      return bad_parameter("min_tokens", "'min_tokens' is more than the " + std::to_string(wanted) +
                                             " tokens that the answer may have");
    }
    // More than the context has left cannot come; the answer then ends with "length".
    const auto room = model_.max_model_len - static_cast<std::int32_t>(prompt.size());
    one.max_tokens = std::min(wanted, room);
    one.min_tokens = std::min(options_.min_tokens, one.max_tokens);
    one.stop_tokens = options_.stop_token_ids;
    if (!options_.ignore_eos) {
      one.stop_tokens.insert(one.stop_tokens.end(), model_.eos_tokens.begin(),
                             model_.eos_tokens.end());
    }
    one.sampling = options_.sampling;
    one.cache_salt = options_.cache_salt;
    one.adapter = adapter_;
    one.priority = options_.priority;
    one.deadline = deadline_;
    one.prompt_logprobs = prompt_logprobs;
    std::vector<engine::GenerateRequest> all;
    for (int i = 0; i < options_.n; ++i) {
      all.push_back(one);
      all.back().sampling.seed = choice_seed(seed_, i);
      if (!constraint.grammar) continue;
      auto compiled = compile(*constraint.grammar, constraint);
      if (!compiled) return std::unexpected(compiled.error());
      all.back().constraint = std::move(*compiled);
    }
    return all;
  }

 private:
  Parsed<std::shared_ptr<engine::TokenConstraint>> compile(const grammar::GrammarSpec& grammar,
                                                           const Constraint& constraint) const {
    if (!model_.compile_grammar) {
      return bad_parameter(constraint.param, "'" + constraint.param +
                                                 "' is not supported with this model: its answers "
                                                 "cannot be held to a format");
    }
    auto compiled = model_.compile_grammar(grammar, constraint.after);
    if (compiled) return std::move(*compiled);
    const Error& error = compiled.error();
    if (error.kind == ErrorKind::kInvalid) {
      return bad_parameter(constraint.param,
                           "'" + constraint.param + "' cannot be kept to: " + error.message);
    }
    return std::unexpected(from_engine(error, constraint.param));
  }

  const ServedModel& model_;
  std::shared_ptr<const engine::Adapter> adapter_;
  const GenerationOptions& options_;
  std::uint64_t seed_;
  std::optional<TimePoint> deadline_;
};

// `name`: what the client calls the model, which the answer repeats.
GenerationSpec empty_spec(ApiKind kind, const std::string& name, const RequestMeta& meta,
                          const GenerationOptions& options) {
  GenerationSpec spec;
  spec.head.kind = kind;
  spec.head.id = (kind == ApiKind::kChat ? "chatcmpl-" : "cmpl-") + random_hex(12);
  spec.head.created = meta.created;
  spec.head.model = name;
  spec.request_id = meta.request_id;
  spec.options = options;
  spec.n = options.n;
  spec.arrived = meta.arrived;
  return spec;
}

ChoiceOutput::Options output_options(const GenerationOptions& options) {
  return {.stops = options.stop,
          .include_stop = options.include_stop_in_output,
          .prompt_logprobs = options.prompt_logprobs};
}

// What an answer must match so that it calls a tool, where it must, or so that the calls that it
// makes are right, where a tool is strict.
Result<std::optional<grammar::GrammarSpec>> tool_grammar(const ServedModel& model,
                                                         const ChatRequest& request) {
  using Kind = ToolChoice::Kind;
  const Kind kind = request.tool_choice.kind;
  const auto& tools = request.template_options.tools;
  if (kind == Kind::kNone) return std::nullopt;
  if (kind == Kind::kAuto && std::ranges::none_of(tools, &text::ToolDefinition::strict)) {
    return std::nullopt;
  }
  using Mode = text::ToolChoice::Mode;
  auto lark = model.chat_template.tool_grammar(
      tools,
      {.mode = kind == Kind::kNamed  ? Mode::kNamed
               : kind == Kind::kAuto ? Mode::kAuto
                                     : Mode::kRequired,
       .name = request.tool_choice.name},
      // A function that is named is called once, whatever else may be called side by side.
      request.parallel_tool_calls && kind != Kind::kNamed);
  if (!lark) return std::unexpected(lark.error());
  return grammar::GrammarSpec{
      .kind = grammar::Kind::kLark, .text = std::move(*lark), .choices = {}};
}

Parsed<Constraint> chat_constraint(const ServedModel& model, const ChatRequest& request,
                                   bool starts_in_reasoning) {
  Constraint made;
  if (request.options.format) {
    made.grammar = request.options.format->grammar;
    made.param = request.options.format->param;
  } else {
    auto grammar = tool_grammar(model, request);
    if (!grammar) return template_error(grammar.error());
    made.grammar = std::move(*grammar);
    made.param = "tools";
    // It is one of the thought, too.
    if (request.tool_choice.kind == ToolChoice::Kind::kAuto) return made;
  }
  if (!made.grammar || !starts_in_reasoning) return made;
  // The thought is free; what comes behind it must match.
  made.after = model.tokenizer.special(kThinkClose);
  if (!made.after) {
    return bad_parameter(made.param, "'" + made.param +
                                         "' cannot be combined with thinking: the end of this "
                                         "model's thought is not one token");
  }
  return made;
}

}  // namespace

// It says "field: why"; without a field that clients know it is about the messages.
std::unexpected<ApiError> template_error(const Error& error) {
  for (const char* field : {"tools", "thinking", "continue_final_message", "tool_choice"}) {
    if (error.message.starts_with(std::string(field) + ": ")) {
      return bad_parameter(field, error.message);
    }
  }
  return bad_parameter("messages", error.message);
}

ApiError no_such_model(const std::string& name) {
  return {.status = 404,
          .message = "The model '" + name + "' does not exist.",
          .param = "model",
          .code = "model_not_found",
          .retry_after_s = 0};
}

Parsed<std::shared_ptr<const engine::Adapter>> adapter_named(const ServedModel& model,
                                                             const std::string& name) {
  if (name == model.name) return nullptr;
  auto adapter = model.adapters ? model.adapters->find(name) : nullptr;
  if (!adapter) return std::unexpected(no_such_model(name));
  return adapter;
}

std::uint64_t choice_seed(std::uint64_t seed, int choice) {
  return choice == 0 ? seed : mix64(seed ^ mix64(static_cast<std::uint64_t>(choice)));
}

Parsed<GenerationSpec> chat_spec(const ServedModel& model, ChatRequest request,
                                 const RequestMeta& meta) {
  auto adapter = adapter_named(model, request.model);
  if (!adapter) return std::unexpected(adapter.error());
  GenerationSpec made = empty_spec(ApiKind::kChat, request.model, meta, request.options);
  made.prompt_param = "messages";
  const Builder builder(model, std::move(*adapter), made.options, meta);
  if (auto error = builder.check()) return std::unexpected(std::move(*error));
  std::size_t least = 0;
  for (const auto& message : request.messages) {
    least += model.tokenizer.least_tokens(message.content);
  }
  if (auto error = builder.check_length(least, "messages")) {
    return std::unexpected(std::move(*error));
  }
  const auto prompt =
      model.chat_template.encode(model.tokenizer, request.messages, request.template_options);
  if (!prompt) return template_error(prompt.error());
  const auto constraint = chat_constraint(model, request, prompt->starts_in_reasoning);
  if (!constraint) return std::unexpected(constraint.error());
  auto sequences = builder.sequences(prompt->ids, "messages", *constraint, model.max_model_len,
                                     made.options.prompt_logprobs);
  if (!sequences) return std::unexpected(sequences.error());
  made.sequences = std::move(*sequences);
  made.reasoning = prompt->starts_in_reasoning ? ChoiceOutput::Reasoning::kInside
                                               : ChoiceOutput::Reasoning::kAnswer;
  ChoiceOutput::Options output = output_options(made.options);
  output.one_tool_call = !request.parallel_tool_calls;
  for (std::size_t i = 0; i < made.sequences.size(); ++i) {
    made.outputs.emplace_back(
        model.chat_template.output_parser(model.tokenizer, prompt->starts_in_reasoning,
                                          !request.template_options.tools.empty()),
        output);
  }
  return made;
}

Parsed<GenerationSpec> completion_spec(const ServedModel& model, CompletionRequest request,
                                       const RequestMeta& meta) {
  auto adapter = adapter_named(model, request.model);
  if (!adapter) return std::unexpected(adapter.error());
  GenerationSpec made = empty_spec(ApiKind::kCompletion, request.model, meta, request.options);
  made.prompt_param = "prompt";
  const Builder builder(model, std::move(*adapter), made.options, meta);
  if (auto error = builder.check()) return std::unexpected(std::move(*error));
  Constraint constraint;
  if (made.options.format) {
    constraint.grammar = made.options.format->grammar;
    constraint.param = made.options.format->param;
  }
  const int echo_logprobs = request.echo ? made.options.sampling.logprobs : -1;
  for (auto& prompt : request.prompts) {
    std::vector<engine::TokenId> ids;
    std::string text;
    if (auto* given = std::get_if<std::string>(&prompt)) {
      const std::size_t least = model.tokenizer.least_tokens(*given) +
                                model.tokenizer.least_tokens(request.suffix.value_or(""));
      if (auto error = builder.check_length(least, "prompt")) {
        return std::unexpected(std::move(*error));
      }
      if (request.suffix) {
        auto filled = text::fim_prompt(model.tokenizer, *given, *request.suffix);
        if (!filled) return bad_parameter("suffix", filled.error().message);
        ids = std::move(*filled);
      } else {
        ids = model.tokenizer.encode_prompt(*given);
      }
      text = std::move(*given);
    } else {
      ids = std::move(std::get<std::vector<engine::TokenId>>(prompt));
      if (request.echo) text = model.tokenizer.decode(ids, /*skip_special=*/false);
    }
    auto sequences = builder.sequences(ids, "prompt", constraint, kDefaultCompletionTokens,
                                       std::max(made.options.prompt_logprobs, echo_logprobs));
    if (!sequences) return std::unexpected(sequences.error());
    ChoiceOutput::Options output = output_options(made.options);
    if (request.echo) {
      output.echo = Echo{.text = std::move(text), .tokens = ids, .logprobs = echo_logprobs};
    }
    for (auto& sequence : *sequences) {
      made.sequences.push_back(std::move(sequence));
      made.outputs.emplace_back(plain_output(model.tokenizer), output);
    }
  }
  return made;
}

}  // namespace dsm::server
