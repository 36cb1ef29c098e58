#include "worker/grpc/grpc_server.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "base/grpc/listener.h"
#include "worker/grpc/deepseek.grpc.pb.h"
#include "worker/grpc/grpc_call.h"

namespace dsm::grpc_api {
namespace {

using deepseek::v1::DeepSeekService;
using deepseek::v1::InferencePiece;
using deepseek::v1::InferenceRequest;
using deepseek::v1::InferenceResponse;

constexpr int kMaxMessage = 8 << 20;  // as the HTTP port

class UnaryReactor final : public grpc::ServerUnaryReactor, public Sink {
 public:
  explicit UnaryReactor(InferenceResponse* response) : response_(response) {}
  void attach(std::weak_ptr<Call> call) { call_ = std::move(call); }

  void whole(InferenceResponse response) override { *response_ = std::move(response); }
  void piece(InferencePiece /*piece*/) override {}
  void end(const grpc::Status& status) override { Finish(status); }
  std::size_t unread_bytes() const override { return 0; }
  void drop() override {}

  void OnCancel() override {
    if (const auto call = call_.lock()) call->cancelled();
  }
  void OnDone() override { delete this; }  // NOLINT(cppcoreguidelines-owning-memory): gRPC's rule

 private:
  InferenceResponse* const response_;
  std::weak_ptr<Call> call_;
};

// gRPC takes one piece at a time: the others wait here.
class StreamReactor final : public grpc::ServerWriteReactor<InferencePiece>, public Sink {
 public:
  explicit StreamReactor(grpc::CallbackServerContext& context) : context_(context) {}
  void attach(std::weak_ptr<Call> call) { call_ = std::move(call); }

  void whole(InferenceResponse /*response*/) override {}
  void piece(InferencePiece piece) override {
    std::unique_lock lock(mutex_);
    unread_bytes_ += piece.ByteSizeLong();
    waiting_.push_back(std::move(piece));
    step(lock);
  }
  void end(const grpc::Status& status) override {
    std::unique_lock lock(mutex_);
    status_ = status;
    step(lock);
  }

  std::size_t unread_bytes() const override {
    const std::lock_guard lock(mutex_);
    return unread_bytes_;
  }
  void drop() override { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    std::unique_lock lock(mutex_);
    writing_ = false;
    unread_bytes_ -= waiting_.front().ByteSizeLong();
    waiting_.pop_front();
    if (!ok) {  // the client is gone
      waiting_.clear();
      unread_bytes_ = 0;
    }
    step(lock);
  }
  void OnCancel() override {
    if (const auto call = call_.lock()) call->cancelled();
  }
  void OnDone() override { delete this; }  // NOLINT(cppcoreguidelines-owning-memory): gRPC's rule

 private:
  // Once Finish() is called another thread may delete this at any moment.
  void step(std::unique_lock<std::mutex>& lock) {
    if (writing_) return;
    if (!waiting_.empty()) {
      writing_ = true;
      StartWrite(&waiting_.front());
    } else if (status_) {
      const grpc::Status status = *status_;
      status_.reset();
      lock.unlock();
      Finish(status);
    }
  }

  grpc::CallbackServerContext& context_;
  std::weak_ptr<Call> call_;
  mutable std::mutex mutex_;
  std::deque<InferencePiece> waiting_;
  std::size_t unread_bytes_ = 0;  // of those
  bool writing_ = false;
  std::optional<grpc::Status> status_;
};

class Service final : public DeepSeekService::CallbackService {
 public:
  explicit Service(std::function<server::Api*()> api) : api_(std::move(api)) {}

  grpc::ServerUnaryReactor* Inference(grpc::CallbackServerContext* context,
                                      const InferenceRequest* request,
                                      InferenceResponse* response) override {
    auto* reactor = new UnaryReactor(response);  // NOLINT(cppcoreguidelines-owning-memory)
    begin(*reactor, *context, *request, /*stream=*/false);
    return reactor;
  }
  grpc::ServerWriteReactor<InferencePiece>* InferenceStream(
      grpc::CallbackServerContext* context, const InferenceRequest* request) override {
    auto* reactor = new StreamReactor(*context);  // NOLINT(cppcoreguidelines-owning-memory)
    begin(*reactor, *context, *request, /*stream=*/true);
    return reactor;
  }

 private:
  template <typename Reactor>
  void begin(Reactor& reactor, const grpc::CallbackServerContext& context,
             const InferenceRequest& request, bool stream) const {
    http::Request asked;
    asked.method = "POST";
    asked.path = "/" + std::string(DeepSeekService::service_full_name());
    asked.body = inference_body(request, stream);
    asked.remote = context.peer();
    const auto& metadata = context.client_metadata();
    for (const char* name : {"x-request-id", "authorization"}) {
      const auto given = metadata.find(name);
      if (given == metadata.end()) continue;
      asked.headers[name] = std::string(given->second.data(), given->second.size());
    }
    const auto call = std::make_shared<Call>(std::move(asked), reactor);
    reactor.attach(call);
    server::Api* api = api_();
    if (api == nullptr) {
      return call->respond(
          server::error_response(server::unavailable("the model is not being served yet", 2)));
    }
    api->inference(call, [call = std::weak_ptr(call)](server::AnswerHead head) {
      return make_call_writer(std::move(head), call.lock());
    });
  }

  const std::function<server::Api*()> api_;
};

}  // namespace

struct GrpcServer::Impl {
  Impl(GrpcAddress a, std::function<server::Api*()> api, Logger l)
      : address(std::move(a)), log(std::move(l)), service(std::move(api)) {}

  const GrpcAddress address;
  Logger log;
  Service service;
  std::atomic<int> told = -1;  // what the health service says
  GrpcListener listener;
};

GrpcServer::GrpcServer(GrpcAddress address, std::function<server::Api*()> api, Logger log)
    : impl_(std::make_unique<Impl>(std::move(address), std::move(api), std::move(log))) {}

GrpcServer::~GrpcServer() {
  stop();
}

Status GrpcServer::start() {
  grpc::EnableDefaultHealthCheckService(true);
  const GrpcAddress& address = impl_->address;
  if (auto begun = impl_->listener.start(address, impl_->service, kMaxMessage); !begun) {
    return fail(begun.error().kind, "gRPC: " + begun.error().message);
  }
  serving(false);
  impl_->log.info("listening for grpc",
                  {{"address", address.text()}, {"port", impl_->listener.port()}});
  return {};
}

std::uint16_t GrpcServer::port() const {
  return impl_->listener.port();
}

void GrpcServer::serving(bool yes) {
  grpc::Server* const server = impl_->listener.server();
  if (server == nullptr || impl_->told.exchange(yes ? 1 : 0) == (yes ? 1 : 0)) return;
  grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
  health->SetServingStatus(DeepSeekService::service_full_name(), yes);
  health->SetServingStatus(yes);  // the server as a whole, which probes ask for
}

void GrpcServer::stop() {
  impl_->listener.stop();
}

}  // namespace dsm::grpc_api
