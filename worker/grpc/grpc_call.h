// One call under way, as the server room sees a request: an Exchange whose answer is messages
// instead of bytes. The writer puts messages in, the Exchange's respond() and finish() give the
// status.
//
// The reactor is gRPC's half: it lives until gRPC has said the last of the call. It is finished
// exactly once, by the Call, at the latest when nobody owns the Call any more; afterwards the Call
// does not touch it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "base/http/server.h"
#include "worker/grpc/deepseek.pb.h"
#include "worker/server/answer_writer.h"

namespace dsm::grpc_api {

// A reactor's side. Thread-safe.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual void whole(deepseek::v1::InferenceResponse response) = 0;
  virtual void piece(deepseek::v1::InferencePiece piece) = 0;
  virtual void end(const grpc::Status& status) = 0;
  // Of pieces that the client has not taken.
  virtual std::size_t unread_bytes() const = 0;
  // They are not sent any more; end() still follows.
  virtual void drop() = 0;
};

class Call final : public http::Exchange {
 public:
  Call(http::Request request, Sink& sink) : request_(std::move(request)), sink_(&sink) {}
  ~Call() override { end(grpc::Status(grpc::StatusCode::CANCELLED, "the request was ended")); }

  // From gRPC: the client is gone.
  void cancelled();

  // From the writer.
  void whole(deepseek::v1::InferenceResponse response);
  void piece(deepseek::v1::InferencePiece piece);

  const http::Request& request() const override { return request_; }
  // The status of an answer in HTTP's words, which is what the server room speaks.
  void respond(http::Response response) override;
  void start(int /*status*/, http::Headers /*headers*/) override {}
  void write(std::string /*chunk*/) override {}
  void finish() override { end(grpc::Status::OK); }
  void abort() override;
  void on_close(std::function<void()> callback) override;
  bool closed() const override;
  std::size_t buffered_bytes() const override;

 private:
  void end(const grpc::Status& status);

  const http::Request request_;
  mutable std::mutex mutex_;
  Sink* sink_;  // null once the call has ended
  bool cancelled_ = false;
  std::function<void()> on_close_;
};

// Answers as messages of `call`. The writer's bytes are always empty.
std::unique_ptr<server::AnswerWriter> make_call_writer(server::AnswerHead head,
                                                       const std::shared_ptr<Call>& call);

// The request as the body of POST /v1/inference, which has its bounds.
std::string inference_body(const deepseek::v1::InferenceRequest& request, bool stream);

}  // namespace dsm::grpc_api
