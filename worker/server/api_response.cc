#include "worker/server/api_response.h"

#include <iterator>

#include "worker/server/answer_json.h"

namespace dsm::server {
namespace {

Json model_object(const ModelCard& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "deepseek-operator"},
          {"max_model_len", model.max_model_len},
          {"root", model.root},
          {"parent", model.parent.empty() ? Json() : Json(model.parent)}};
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

std::string models_json(const std::vector<ModelCard>& models) {
  Json data = Json::array();
  for (const ModelCard& model : models) data.push_back(model_object(model));
  return dump({{"object", "list"}, {"data", std::move(data)}});
}

std::string model_json(const ModelCard& model) {
  return dump(model_object(model));
}

}  // namespace dsm::server
