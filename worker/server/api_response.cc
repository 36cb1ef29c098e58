#include "worker/server/api_response.h"

#include <iterator>

#include "worker/server/answer_json.h"

namespace dsm::server {
namespace {

Json model_object(const std::string& model, std::int64_t created, int max_model_len) {
  return {{"id", model},
          {"object", "model"},
          {"created", created},
          {"owned_by", "deepseek-operator"},
          {"max_model_len", max_model_len}};
}

template <typename T>
void move_behind(std::vector<T>& all, std::vector<T>& more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

}  // namespace

void append(Choice& choice, ChoiceDelta delta) {
  choice.content += delta.content;
  choice.reasoning += delta.reasoning;
  for (ToolCallDelta& piece : delta.tool_calls) {
    const auto index = static_cast<std::size_t>(piece.index);
    if (index >= choice.tool_calls.size()) choice.tool_calls.resize(index + 1);
    text::ToolCall& call = choice.tool_calls[index];
    call.id += piece.id;
    call.name += piece.name;
    call.arguments += piece.arguments;
  }
  move_behind(choice.logprobs, delta.logprobs);
  move_behind(choice.prompt_logprobs, delta.prompt_logprobs);
  if (!delta.finish_reason.empty()) {
    choice.finish_reason = std::move(delta.finish_reason);
    choice.stop_string = std::move(delta.stop_string);
  }
}

std::string sse_event(const std::string& data) {
  return "data: " + data + "\n\n";
}

std::string sse_event(const std::string& name, const std::string& data) {
  return "event: " + name + "\ndata: " + data + "\n\n";
}

std::string models_json(const std::string& model, std::int64_t created, int max_model_len) {
  const Json json = {{"object", "list"},
                     {"data", Json::array({model_object(model, created, max_model_len)})}};
  return dump(json);
}

std::string model_json(const std::string& model, std::int64_t created, int max_model_len) {
  return dump(model_object(model, created, max_model_len));
}

}  // namespace dsm::server
