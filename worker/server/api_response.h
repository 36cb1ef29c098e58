// What clients get, as JSON texts: OpenAI's objects for chat and text completions, whole and as
// chunks of a stream. Pure functions of values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/engine/request.h"
#include "worker/server/tool_call_delta.h"
#include "worker/text/chat_template.h"

namespace dsm::server {

struct Usage {
  int prompt_tokens = 0;
  int completion_tokens = 0;
  int cached_tokens = 0;     // of the prompt, found in the prefix cache
  int reasoning_tokens = 0;  // of the completion
};

enum class ApiKind { kChat, kCompletion };

// What all objects of one answer share.
struct AnswerHead {
  ApiKind kind = ApiKind::kChat;
  std::string id;
  std::int64_t created = 0;  // Unix time in seconds
  std::string model;
};

struct Choice {
  std::string content;
  std::string reasoning;  // goes into `reasoning_content`, as DeepSeek's API has it
  bool has_reasoning = false;
  std::vector<text::ToolCall> tool_calls = {};
  std::vector<engine::PositionLogprobs> logprobs = {};
  std::vector<engine::PositionLogprobs> prompt_logprobs = {};
  std::string finish_reason;
};

// A piece of a stream; empty parts are left out.
struct ChoiceDelta {
  int index = 0;
  bool role = false;  // the first one of a chat
  std::string content = {};
  std::string reasoning = {};
  std::vector<ToolCallDelta> tool_calls = {};
  std::vector<engine::PositionLogprobs> logprobs = {};
  std::string finish_reason = {};
};

std::string answer_json(const AnswerHead& head, const std::vector<Choice>& choices,
                        const Usage& usage);

// `with_usage`: the client asked for usage, so chunks that have none say null.
std::string chunk_json(const AnswerHead& head, const ChoiceDelta& delta, bool with_usage,
                       const std::optional<Usage>& usage);
// The last chunk when include_usage was asked for: no choices.
std::string usage_chunk_json(const AnswerHead& head, const Usage& usage);

// One event of a server-sent stream.
std::string sse_event(const std::string& data);
inline constexpr const char* kSseDone = "data: [DONE]\n\n";
inline constexpr const char* kSseComment = ": keep-alive\n\n";

std::string models_json(const std::string& model, std::int64_t created, int max_model_len);
std::string model_json(const std::string& model, std::int64_t created, int max_model_len);

}  // namespace dsm::server
