#include "worker/grpc/grpc_call.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace dsm::grpc_api {
namespace {

using grpc::StatusCode;

StatusCode code_of(int status) {
  switch (status) {
    case 400:
    case 413:
      return StatusCode::INVALID_ARGUMENT;
    case 401:
      return StatusCode::UNAUTHENTICATED;
    case 404:
      return StatusCode::NOT_FOUND;
    case 429:
      return StatusCode::RESOURCE_EXHAUSTED;
    case 503:
      return StatusCode::UNAVAILABLE;
    case 408:
      return StatusCode::DEADLINE_EXCEEDED;
    default:
      return StatusCode::INTERNAL;
  }
}

// The sentence of an error body.
std::string message_of(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  const auto at = nlohmann::json::json_pointer("/error/message");
  if (!json.is_object() || !json.contains(at) || !json[at].is_string()) return "refused";
  return json[at].get<std::string>();
}

void set_usage(const server::Usage& usage, deepseek::v1::Usage& out) {
  out.set_prompt_tokens(usage.prompt_tokens);
  out.set_completion_tokens(usage.completion_tokens);
  out.set_cached_tokens(usage.cached_tokens);
  out.set_reasoning_tokens(usage.reasoning_tokens);
}

class CallWriter final : public server::AnswerWriter {
 public:
  CallWriter(server::AnswerHead head, const std::shared_ptr<Call>& call)
      : head_(std::move(head)), call_(call) {}

  std::string whole(const std::vector<server::Choice>& choices,
                    const server::Usage& usage) override {
    const server::Choice& choice = choices.front();
    deepseek::v1::InferenceResponse response;
    response.set_id(head_.id);
    response.set_model_id(head_.model);
    response.set_output_data(choice.content);
    response.set_reasoning(choice.reasoning);
    response.set_finish_reason(choice.finish_reason);
    set_usage(usage, *response.mutable_usage());
    if (const auto call = call_.lock()) call->whole(std::move(response));
    return "";
  }
  std::string open(const server::Usage& /*so_far*/) override { return ""; }
  std::string delta(const server::ChoiceDelta& delta, const server::Usage& /*so_far*/) override {
    finish_reason_ = delta.finish_reason;
    if (delta.content.empty() && delta.reasoning.empty()) return "";
    deepseek::v1::InferencePiece piece;
    piece.set_output_data(delta.content);
    piece.set_reasoning(delta.reasoning);
    send(std::move(piece));
    return "";
  }
  std::string close(const server::Usage& usage) override {
    deepseek::v1::InferencePiece piece;
    piece.set_finish_reason(finish_reason_);
    set_usage(usage, *piece.mutable_usage());
    send(std::move(piece));
    return "";
  }
  // Nothing is ever written to the Exchange, so failures in mid-stream are refusals, too.
  std::string error(const server::ApiError& /*error*/) override { return ""; }
  std::string keep_alive() override { return ""; }  // HTTP/2 has its own

 private:
  void send(deepseek::v1::InferencePiece piece) {
    if (const auto call = call_.lock()) call->piece(std::move(piece));
  }

  const server::AnswerHead head_;
  const std::weak_ptr<Call> call_;  // the Generation owns both
  std::string finish_reason_;
};

}  // namespace

void Call::cancelled() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    callback = std::exchange(on_close_, nullptr);
  }
  if (callback) callback();
}

void Call::whole(deepseek::v1::InferenceResponse response) {
  const std::lock_guard lock(mutex_);
  if (sink_ != nullptr) sink_->whole(std::move(response));
}

void Call::piece(deepseek::v1::InferencePiece piece) {
  const std::lock_guard lock(mutex_);
  if (sink_ != nullptr) sink_->piece(std::move(piece));
}

void Call::respond(http::Response response) {
  end(response.status < 400 ? grpc::Status::OK
                            : grpc::Status(code_of(response.status), message_of(response.body)));
}

void Call::on_close(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!cancelled_) {
      on_close_ = std::move(callback);
      return;
    }
  }
  callback();
}

void Call::abort() {
  Sink* sink = nullptr;
  {
    const std::lock_guard lock(mutex_);
    sink = sink_;
  }
  // Without the lock: gRPC may tell of the end at once, on this thread. The sink lives until end().
  if (sink != nullptr) sink->drop();
  end(grpc::Status(StatusCode::RESOURCE_EXHAUSTED, "the answer was read too slowly"));
}

std::size_t Call::buffered_bytes() const {
  const std::lock_guard lock(mutex_);
  return sink_ == nullptr ? 0 : sink_->unread_bytes();
}

bool Call::closed() const {
  const std::lock_guard lock(mutex_);
  return cancelled_ || sink_ == nullptr;
}

void Call::end(const grpc::Status& status) {
  const std::lock_guard lock(mutex_);
  if (sink_ != nullptr) std::exchange(sink_, nullptr)->end(status);
}

std::unique_ptr<server::AnswerWriter> make_call_writer(server::AnswerHead head,
                                                       const std::shared_ptr<Call>& call) {
  return std::make_unique<CallWriter>(std::move(head), call);
}

std::string inference_body(const deepseek::v1::InferenceRequest& request, bool stream) {
  nlohmann::json body = {{"prompt", request.input_data()}, {"stream", stream}};
  if (!request.model_id().empty()) body["model"] = request.model_id();
  const deepseek::v1::Params& params = request.params();
  if (params.has_max_tokens()) body["max_tokens"] = params.max_tokens();
  if (params.has_temperature()) body["temperature"] = params.temperature();
  if (params.has_top_p()) body["top_p"] = params.top_p();
  if (params.has_top_k()) body["top_k"] = params.top_k();
  if (params.has_min_p()) body["min_p"] = params.min_p();
  if (params.has_seed()) body["seed"] = params.seed();
  for (const std::string& stop : params.stop()) body["stop"].push_back(stop);
  if (params.has_thinking()) {
    body["thinking"] = {{"type", params.thinking() ? "enabled" : "disabled"}};
  }
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace dsm::grpc_api
