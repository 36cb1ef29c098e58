// What clients ask for, as native values: JSON is parsed here, at once and with bounds, and goes no
// further. Fields that we do not know are ignored, as OpenAI-compatible servers do. Fields that we
// know and cannot honour are refused by name unless their value asks for nothing, so that no client
// gets an answer that silently lacks what it asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "worker/engine/batch.h"
#include "worker/engine/sampling_params.h"
#include "worker/server/api_error.h"
#include "worker/text/chat_template.h"

namespace dsm::server {

// What a request that does not say otherwise gets; from the model's generation_config.json.
struct SamplingDefaults {
  float temperature = 1.0F;  // 0 when the model says do_sample: false
  float top_p = 1.0F;
  int top_k = 0;
  bool thinking = false;
};

// What chat and text completions have in common.
struct GenerationOptions {
  engine::SamplingParams sampling;         // without the seed
  std::optional<std::uint64_t> seed;       // absent: a random one
  std::optional<std::int32_t> max_tokens;  // absent: what the context has left (chat), 16 (text)
  std::vector<std::string> stop;
  std::vector<engine::TokenId> stop_token_ids;
  bool include_stop_in_output = false;
  bool ignore_eos = false;
  std::string cache_salt;
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // and the usage so far in every chunk
};

struct ChatRequest {
  std::string model;
  std::vector<text::ChatMessage> messages;
  text::ChatOptions template_options;
  GenerationOptions options;
};

struct CompletionRequest {
  using Prompt = std::variant<std::string, std::vector<engine::TokenId>>;
  std::string model;
  std::vector<Prompt> prompts;  // one choice for each
  GenerationOptions options;
};

inline constexpr int kMaxJsonDepth = 64;
inline constexpr std::size_t kMaxStops = 16;
inline constexpr std::size_t kMaxStopBytes = 1024;
inline constexpr std::size_t kMaxMessages = 4096;
inline constexpr std::size_t kMaxPrompts = 128;

Parsed<ChatRequest> parse_chat(std::string_view body, const SamplingDefaults& defaults);
// `vocab_size` bounds the token ids of a prompt.
Parsed<CompletionRequest> parse_completion(std::string_view body, const SamplingDefaults& defaults,
                                           std::int32_t vocab_size);

// generation_config.json. An empty text stands for no file. kInvalid: not what it must be.
Result<SamplingDefaults> parse_generation_config(std::string_view json);

}  // namespace dsm::server
