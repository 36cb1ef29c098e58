// OpenAI's chat completions, with DeepSeek's `reasoning_content`.
#include <utility>

#include "worker/server/answer_json.h"
#include "worker/server/answer_writer.h"

namespace dsm::server {
namespace {

class ChatWriter final : public AnswerWriter {
 public:
  ChatWriter(AnswerForm form, const text::Tokenizer& tokenizer)
      : form_(std::move(form)), tokenizer_(tokenizer) {}

  std::string whole(const std::vector<Choice>& choices, const Usage& usage) override {
    Json json = head("chat.completion");
    Json list = Json::array();
    for (std::size_t i = 0; i < choices.size(); ++i) {
      const Choice& choice = choices[i];
      Json one = {{"index", i}, {"message", message(choice)}};
      one["logprobs"] = logprobs(choice.logprobs, form_.logprobs);
      one["finish_reason"] = choice.finish_reason;
      list.push_back(std::move(one));
    }
    json["choices"] = std::move(list);
    json["usage"] = usage_object(usage);
    // All choices have the same prompt.
    if (!choices.empty() && !choices.front().prompt_logprobs.empty()) {
      json["prompt_logprobs"] = prompt_logprobs_array(tokenizer_, choices.front().prompt_logprobs);
    }
    return dump(json);
  }

  std::string open(const Usage& /*so_far*/) override { return ""; }

  std::string delta(const ChoiceDelta& delta, const Usage& so_far) override {
    std::string text;
    if (delta.role) {
      Json first = chunk(delta.index, {{"role", "assistant"}, {"content", ""}}, so_far);
      if (!delta.prompt_logprobs.empty()) {
        first["prompt_logprobs"] = prompt_logprobs_array(tokenizer_, delta.prompt_logprobs);
      }
      text += sse_event(dump(first));
    }
    if (delta.has_text() || !delta.logprobs.empty()) {
      Json piece = chunk(delta.index, fields(delta), so_far);
      piece["choices"][0]["logprobs"] = logprobs(delta.logprobs, false);
      text += sse_event(dump(piece));
    }
    if (!delta.finish_reason.empty()) {
      Json last = chunk(delta.index, Json::object(), so_far);
      last["choices"][0]["finish_reason"] = delta.finish_reason;
      text += sse_event(dump(last));
    }
    return text;
  }

  std::string close(const Usage& usage) override {
    std::string text;
    if (form_.include_usage) {
      Json json = head("chat.completion.chunk");
      json["choices"] = Json::array();
      json["usage"] = usage_object(usage);
      text = sse_event(dump(json));
    }
    return text + kSseDone;
  }

  std::string error(const ApiError& error) override { return sse_event(error_json(error)); }

 private:
  Json head(const char* object) const {
    return {{"id", form_.head.id},
            {"object", object},
            {"created", form_.head.created},
            {"model", form_.head.model}};
  }

  Json chunk(int index, Json fields, const Usage& so_far) const {
    Json json = head("chat.completion.chunk");
    json["choices"] = Json::array({{{"index", index},
                                    {"delta", std::move(fields)},
                                    {"logprobs", nullptr},
                                    {"finish_reason", nullptr}}});
    if (form_.continuous_usage) {
      json["usage"] = usage_object(so_far);
    } else if (form_.include_usage) {
      json["usage"] = nullptr;
    }
    return json;
  }

  Json fields(const ChoiceDelta& delta) const {
    Json fields = Json::object();
    if (!delta.reasoning.empty()) {
      fields["reasoning_content"] = delta.reasoning;
      if (form_.reasoning_alias) fields["reasoning"] = delta.reasoning;
    }
    if (!delta.content.empty()) fields["content"] = delta.content;
    if (!delta.tool_calls.empty()) {
      Json calls = Json::array();
      for (const ToolCallDelta& piece : delta.tool_calls) {
        Json call = {{"index", piece.index}};
        Json function = Json::object();
        if (!piece.id.empty() || !piece.name.empty()) {
          call["id"] = piece.id;
          call["type"] = "function";
          function["name"] = piece.name;
        }
        function["arguments"] = piece.arguments;
        call["function"] = std::move(function);
        calls.push_back(std::move(call));
      }
      fields["tool_calls"] = std::move(calls);
    }
    return fields;
  }

  Json message(const Choice& choice) const {
    Json message = {{"role", "assistant"}};
    if (choice.has_reasoning) {
      message["reasoning_content"] = choice.reasoning;
      if (form_.reasoning_alias) message["reasoning"] = choice.reasoning;
    }
    if (choice.tool_calls.empty()) {
      message["content"] = choice.content;
      return message;
    }
    message["content"] = choice.content.empty() ? Json() : Json(choice.content);
    Json calls = Json::array();
    for (const text::ToolCall& call : choice.tool_calls) {
      calls.push_back({{"id", call.id},
                       {"type", "function"},
                       {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
    }
    message["tool_calls"] = std::move(calls);
    return message;
  }

  Json token(const engine::TokenLogprob& one) const {
    Json bytes = Json::array();
    for (const char c : tokenizer_.piece(one.token)) bytes.push_back(static_cast<unsigned char>(c));
    return {{"token", token_text(tokenizer_, one.token)},
            {"logprob", finite_logprob(one.logprob)},
            {"bytes", std::move(bytes)}};
  }

  // Null where there is nothing, but for a whole answer that should have them.
  Json logprobs(const std::vector<engine::PositionLogprobs>& positions, bool always) const {
    if (positions.empty() && !always) return nullptr;
    Json content = Json::array();
    for (const engine::PositionLogprobs& position : positions) {
      Json one = token(position.chosen);
      Json top = Json::array();
      for (const engine::TokenLogprob& likely : position.top) top.push_back(token(likely));
      one["top_logprobs"] = std::move(top);
      content.push_back(std::move(one));
    }
    return {{"content", std::move(content)}, {"refusal", nullptr}};
  }

  const AnswerForm form_;
  const text::Tokenizer& tokenizer_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_chat_writer(AnswerForm form, const text::Tokenizer& tokenizer) {
  return std::make_unique<ChatWriter>(std::move(form), tokenizer);
}

}  // namespace dsm::server
