// The simple form: a text and how it ended.
#include <utility>

#include "worker/server/answer_json.h"
#include "worker/server/answer_writer.h"

namespace dsm::server {
namespace {

class InferenceWriter final : public AnswerWriter {
 public:
  explicit InferenceWriter(AnswerHead head) : head_(std::move(head)) {}

  std::string whole(const std::vector<Choice>& choices, const Usage& usage) override {
    Json json = {{"id", head_.id}, {"model", head_.model}};
    const Choice& choice = choices.front();
    json["text"] = choice.content;
    if (choice.has_reasoning) json["reasoning"] = choice.reasoning;
    json["finish_reason"] = choice.finish_reason;
    json["usage"] = counts(usage);
    return dump(json);
  }

  std::string open(const Usage& /*so_far*/) override { return ""; }

  std::string delta(const ChoiceDelta& delta, const Usage& /*so_far*/) override {
    finish_reason_ = delta.finish_reason;
    Json json = Json::object();
    if (!delta.content.empty()) json["text"] = delta.content;
    if (!delta.reasoning.empty()) json["reasoning"] = delta.reasoning;
    return json.empty() ? "" : sse_event(dump(json));
  }

  std::string close(const Usage& usage) override {
    return sse_event(dump({{"finish_reason", finish_reason_}, {"usage", counts(usage)}})) +
           kSseDone;
  }

  std::string error(const ApiError& error) override { return sse_event(error_json(error)); }

 private:
  static Json counts(const Usage& usage) {
    return {{"prompt_tokens", usage.prompt_tokens},
            {"completion_tokens", usage.completion_tokens},
            {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
  }

  const AnswerHead head_;
  std::string finish_reason_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_inference_writer(AnswerHead head) {
  return std::make_unique<InferenceWriter>(std::move(head));
}

}  // namespace dsm::server
