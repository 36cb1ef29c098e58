// Anthropic's Messages. An answer is a list of content blocks: the thought (`thinking`), the text
// (`text`) and the tool calls (`tool_use`); in a stream each begins, grows and stops before the
// next.
#include <optional>
#include <utility>

#include "worker/server/answer_json.h"
#include "worker/server/answer_writer.h"

namespace dsm::server {
namespace {

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 408:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

Json error_object(const ApiError& error, const std::string& request_id) {
  return {{"type", "error"},
          {"error", {{"type", error_type(error.status)}, {"message", error.message}}},
          {"request_id", request_id}};
}

// Tokens of the prompt that were found in the cache are counted apart from the others.
Json message_usage(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.cached_tokens},
          {"output_tokens", usage.completion_tokens}};
}

Json thinking_block(const std::string& text) {
  // There is nothing to sign: thoughts that come back are read as they are.
  return {{"type", "thinking"}, {"thinking", text}, {"signature", ""}};
}
Json text_block(const std::string& text) {
  return {{"type", "text"}, {"text", text}};
}
Json tool_block(const std::string& id, const std::string& name, Json input) {
  return {{"type", "tool_use"}, {"id", id}, {"name", name}, {"input", std::move(input)}};
}

// The API has arguments as an object. What the model wrote and is none stays readable.
Json tool_input(const std::string& arguments) {
  Json input = parse_or(arguments.empty() ? "{}" : arguments, Json());
  return input.is_object() ? input : Json{{"arguments", arguments}};
}

const char* stop_reason(const std::string& finish_reason, const std::string& stop_string) {
  if (finish_reason == "length") return "max_tokens";
  if (finish_reason == "tool_calls") return "tool_use";
  return stop_string.empty() ? "end_turn" : "stop_sequence";
}

class MessagesWriter final : public AnswerWriter {
 public:
  MessagesWriter(AnswerHead head, std::string request_id)
      : head_(std::move(head)), request_id_(std::move(request_id)) {}

  std::string whole(const std::vector<Choice>& choices, const Usage& usage) override {
    const Choice& choice = choices.front();
    Json content = Json::array();
    if (!choice.reasoning.empty()) content.push_back(thinking_block(choice.reasoning));
    if (!choice.content.empty()) content.push_back(text_block(choice.content));
    for (const text::ToolCall& call : choice.tool_calls) {
      content.push_back(tool_block(call.id, call.name, tool_input(call.arguments)));
    }
    stop_reason_ = stop_reason(choice.finish_reason, choice.stop_string);
    stop_string_ = choice.stop_string;
    return dump(message(std::move(content), usage));
  }

  std::string open(const Usage& so_far) override {
    return event("message_start", {{"message", message(Json::array(), so_far)}});
  }

  std::string delta(const ChoiceDelta& delta, const Usage& /*so_far*/) override {
    std::string text;
    if (!delta.reasoning.empty()) {
      text += begin(Block::kThinking, thinking_block(""));
      text += grow({{"type", "thinking_delta"}, {"thinking", delta.reasoning}});
    }
    if (!delta.content.empty()) {
      text += begin(Block::kText, text_block(""));
      text += grow({{"type", "text_delta"}, {"text", delta.content}});
    }
    for (const ToolCallDelta& piece : delta.tool_calls) {
      if (piece.index != call_) text += end_block();
      call_ = piece.index;
      text += begin(Block::kTool, tool_block(piece.id, piece.name, Json::object()));
      if (!piece.arguments.empty()) {
        text += grow({{"type", "input_json_delta"}, {"partial_json", piece.arguments}});
      }
    }
    if (!delta.finish_reason.empty()) {
      text += end_block();
      stop_reason_ = stop_reason(delta.finish_reason, delta.stop_string);
      stop_string_ = delta.stop_string;
    }
    return text;
  }

  std::string close(const Usage& usage) override {
    return event("message_delta", {{"delta",
                                    {{"stop_reason", stop_reason_.value_or("end_turn")},
                                     {"stop_sequence", stop_sequence()}}},
                                   {"usage", message_usage(usage)}}) +
           event("message_stop", Json::object());
  }

  std::string error(const ApiError& error) override {
    return sse_event("error", messages_error_json(error, request_id_));
  }
  std::string keep_alive() override { return event("ping", Json::object()); }
  http::Response refusal(const ApiError& error) const override {
    return messages_error_response(error, request_id_);
  }

 private:
  enum class Block { kNone, kThinking, kText, kTool };

  Json stop_sequence() const { return stop_string_.empty() ? Json() : Json(stop_string_); }

  Json message(Json content, const Usage& usage) const {
    return {{"id", head_.id},
            {"type", "message"},
            {"role", "assistant"},
            {"model", head_.model},
            {"content", std::move(content)},
            {"stop_reason", stop_reason_ ? Json(*stop_reason_) : Json()},
            {"stop_sequence", stop_sequence()},
            {"usage", message_usage(usage)}};
  }

  static std::string event(const std::string& type, const Json& fields) {
    Json json = {{"type", type}};
    json.update(fields);
    return sse_event(type, dump(json));
  }

  // A block of this kind, unless it is open already.
  std::string begin(Block kind, const Json& block) {
    if (open_ == kind) return "";
    std::string text = end_block();
    open_ = kind;
    return text + event("content_block_start", {{"index", index_}, {"content_block", block}});
  }
  std::string grow(const Json& delta) const {
    return event("content_block_delta", {{"index", index_}, {"delta", delta}});
  }
  std::string end_block() {
    if (open_ == Block::kNone) return "";
    std::string text;
    if (open_ == Block::kThinking) text = grow({{"type", "signature_delta"}, {"signature", ""}});
    open_ = Block::kNone;
    return text + event("content_block_stop", {{"index", index_++}});
  }

  const AnswerHead head_;
  const std::string request_id_;
  Block open_ = Block::kNone;
  int index_ = 0;  // of the block that is open, or comes next
  int call_ = -1;  // the index of the call that is open
  std::optional<std::string> stop_reason_;
  std::string stop_string_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_messages_writer(AnswerHead head, std::string request_id) {
  return std::make_unique<MessagesWriter>(std::move(head), std::move(request_id));
}

std::string messages_error_json(const ApiError& error, const std::string& request_id) {
  return dump(error_object(error, request_id));
}

http::Response messages_error_response(const ApiError& error, const std::string& request_id) {
  http::Response response = error_response(error);  // for its status and headers
  response.body = messages_error_json(error, request_id);
  response.headers["X-Request-Id"] = request_id;
  response.headers["Request-Id"] = request_id;  // Anthropic's name of it
  return response;
}

}  // namespace dsm::server
