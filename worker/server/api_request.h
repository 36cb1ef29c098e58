// What clients ask for, as native values: JSON is parsed here, at once and with bounds, and goes no
// further. Fields that we do not know are ignored, as OpenAI-compatible servers do. Fields that we
// know and cannot honour are refused by name unless their value asks for nothing, so that no client
// gets an answer that silently lacks what it asked for. What contradicts itself is refused too.
//
// What depends on the model (its vocabulary, its template's tools, the room in its context) is
// checked where the request becomes sequences: see spec_builder.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "worker/engine/batch.h"
#include "worker/engine/sampling_params.h"
#include "worker/grammar/grammar.h"
#include "worker/server/api_error.h"
#include "worker/text/chat_template.h"

namespace dsm::server {

// What a request that does not say otherwise gets; from the model's generation_config.json.
struct SamplingDefaults {
  float temperature = 1.0F;  // 0 when the model says do_sample: false
  float top_p = 1.0F;
  int top_k = 0;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  bool thinking = false;
};

// The answer's text must match this.
struct OutputFormat {
  grammar::GrammarSpec grammar;
  std::string param;  // the field that asked for it: errors of the grammar name it
};

// What chat and text completions have in common.
struct GenerationOptions {
  engine::SamplingParams sampling;         // without the seed
  std::optional<std::uint64_t> seed;       // absent: a random one
  int n = 1;                               // choices for each prompt
  std::optional<std::int32_t> max_tokens;  // absent: what the context has left (chat), 16 (text)
  std::int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<engine::TokenId> stop_token_ids;
  bool include_stop_in_output = false;
  bool ignore_eos = false;
  std::optional<OutputFormat> format;
  int prompt_logprobs = -1;        // as SamplingParams::logprobs, of the prompt's tokens
  int priority = 0;                // lower goes first
  std::optional<Millis> max_time;  // from the request's arrival
  std::string cache_salt;
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // and the usage so far in every chunk
};

// Whether the answer may or must call a tool.
struct ToolChoice {
  enum class Kind { kNone, kAuto, kRequired, kNamed };
  Kind kind = Kind::kNone;
  std::string name = {};  // of kNamed
};

struct ChatRequest {
  std::string model;
  std::vector<text::ChatMessage> messages;
  text::ChatOptions template_options;  // with the tools
  ToolChoice tool_choice;
  bool parallel_tool_calls = true;
  GenerationOptions options;
};

struct CompletionRequest {
  using Prompt = std::variant<std::string, std::vector<engine::TokenId>>;
  std::string model;
  std::vector<Prompt> prompts;        // `n` choices for each
  std::optional<std::string> suffix;  // the answer goes between the prompt and this
  bool echo = false;                  // the answer's text begins with the prompt
  GenerationOptions options;
};

inline constexpr std::size_t kMaxStops = 16;
inline constexpr std::size_t kMaxStopBytes = 1024;
inline constexpr std::size_t kMaxMessages = 4096;
inline constexpr std::size_t kMaxPrompts = 128;
inline constexpr int kMaxN = 16;
inline constexpr std::size_t kMaxChoices = 256;  // prompts times n
inline constexpr std::size_t kMaxTools = 128;
inline constexpr std::size_t kMaxToolCalls = 128;            // of one message
inline constexpr std::size_t kMaxToolName = 128;             // bytes
inline constexpr std::size_t kMaxToolBytes = 1 << 20;        // of all definitions
inline constexpr std::size_t kMaxGrammarBytes = 256 * 1024;  // of a schema, expression, grammar
inline constexpr std::size_t kMaxGrammarChoices = 1024;
inline constexpr std::int64_t kMaxTimeMs = 24LL * 3600 * 1000;

Parsed<ChatRequest> parse_chat(std::string_view body, const SamplingDefaults& defaults);
// `vocab_size` bounds the token ids of a prompt.
Parsed<CompletionRequest> parse_completion(std::string_view body, const SamplingDefaults& defaults,
                                           std::int32_t vocab_size);

// The time limit in milliseconds that a header gives (X-Request-Timeout-Ms); nullopt when it is
// empty.
Parsed<std::optional<Millis>> parse_time_limit(std::string_view header);

// generation_config.json. An empty text stands for no file. kInvalid: not what it must be.
Result<SamplingDefaults> parse_generation_config(std::string_view json);

}  // namespace dsm::server
