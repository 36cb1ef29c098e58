// What an answer is made of, as plain values that every API's writer (answer_writer.h) turns into
// its own texts, and the lists of models. Pure functions of values.
#pragma once

#include <cstdint>
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
  std::string id = {};
  std::int64_t created = 0;  // Unix time in seconds
  std::string model = {};
};

struct Choice {
  std::string content = {};
  std::string reasoning = {};  // goes into `reasoning_content`, as DeepSeek's API has it
  bool has_reasoning = false;
  std::vector<text::ToolCall> tool_calls = {};
  std::vector<engine::PositionLogprobs> logprobs = {};
  std::vector<engine::PositionLogprobs> prompt_logprobs = {};
  std::string finish_reason = {};  // stop, length or tool_calls
  std::string stop_string = {};    // the one that ended it, when one did
};

// A piece of a stream; empty parts are left out.
struct ChoiceDelta {
  int index = 0;
  bool role = false;  // the first one of a choice
  std::string content = {};
  std::string reasoning = {};
  std::vector<ToolCallDelta> tool_calls = {};
  std::vector<engine::PositionLogprobs> logprobs = {};
  std::vector<engine::PositionLogprobs> prompt_logprobs = {};  // with the first one
  std::string finish_reason = {};                              // the last one of a choice
  std::string stop_string = {};

  bool has_text() const { return !content.empty() || !reasoning.empty() || !tool_calls.empty(); }
};

// The choice with this piece behind what it has: what a client that joins a stream does.
void append(Choice& choice, ChoiceDelta delta);

// One event of a server-sent stream: without a name, as OpenAI's chat has them, and with one.
std::string sse_event(const std::string& data);
std::string sse_event(const std::string& name, const std::string& data);
inline constexpr const char* kSseDone = "data: [DONE]\n\n";
inline constexpr const char* kSseComment = ": keep-alive\n\n";

// A model as lists show it.
struct ModelCard {
  std::string id;
  std::int64_t created = 0;  // Unix time
  int max_model_len = 0;
  std::string root;         // what it is made of: the model's own name, an adapter's path
  std::string parent = {};  // of an adapter: the model that it is added to
};
std::string models_json(const std::vector<ModelCard>& models);
std::string model_json(const ModelCard& model);

}  // namespace dsm::server
