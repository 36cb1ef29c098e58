#include "operator/keda/keda_server.h"

#include <grpcpp/grpcpp.h>

#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "base/grpc/listener.h"
#include "operator/keda/externalscaler.grpc.pb.h"

namespace dsm::keda {
namespace {

using externalscaler::ExternalScaler;
using externalscaler::GetMetricSpecResponse;
using externalscaler::GetMetricsRequest;
using externalscaler::GetMetricsResponse;
using externalscaler::IsActiveResponse;
using externalscaler::ScaledObjectRef;

constexpr int kMaxMessage = 64 << 10;

grpc::Status to_grpc(const Error& error) {
  switch (error.kind) {
    case ErrorKind::kInvalid:
      return {grpc::StatusCode::INVALID_ARGUMENT, error.message};
    case ErrorKind::kNotFound:
      return {grpc::StatusCode::NOT_FOUND, error.message};
    default:
      return {grpc::StatusCode::UNAVAILABLE, error.message};
  }
}

Result<Trigger> trigger_of(const ScaledObjectRef& ref) {
  return parse_trigger(ref.namespace_(),
                       {ref.scalermetadata().begin(), ref.scalermetadata().end()});
}

Result<bool> active(const Numbers& numbers, const Trigger& trigger) {
  const auto value = numbers(trigger.ns, trigger.model, trigger.metric);
  if (!value) return std::unexpected(value.error());
  return *value > trigger.activation;
}

// One open StreamIsActive. Nothing is said while the number is not known: what was said last
// stands.
class Stream final : public grpc::ServerWriteReactor<IsActiveResponse> {
 public:
  using Forget = std::function<void(Stream*)>;

  Stream(Trigger trigger, Forget forget)
      : trigger_(std::move(trigger)), forget_(std::move(forget)) {}

  const Trigger& trigger() const { return trigger_; }

  void say(bool active) {
    std::unique_lock lock(mutex_);
    wanted_ = active;
    step(lock);
  }
  void end(const grpc::Status& status) {
    std::unique_lock lock(mutex_);
    if (ended_) return;
    ended_ = true;
    status_ = status;
    step(lock);
  }

  void OnWriteDone(bool /*ok*/) override {  // what went wrong comes as OnCancel
    std::unique_lock lock(mutex_);
    writing_ = false;
    step(lock);
  }
  void OnCancel() override { end(grpc::Status::CANCELLED); }
  void OnDone() override {
    forget_(this);
    delete this;  // NOLINT(cppcoreguidelines-owning-memory): gRPC's rule
  }

 private:
  // gRPC takes one message at a time, and the end after the last.
  void step(std::unique_lock<std::mutex>& lock) {
    if (writing_) return;
    if (status_) {
      const grpc::Status status = *status_;
      status_.reset();
      lock.unlock();
      Finish(status);
    } else if (!ended_ && wanted_ && wanted_ != said_) {
      said_ = wanted_;
      message_.set_result(*said_);
      writing_ = true;
      StartWrite(&message_);
    }
  }

  const Trigger trigger_;
  const Forget forget_;
  std::mutex mutex_;
  std::optional<bool> wanted_;
  std::optional<bool> said_;
  bool writing_ = false;
  bool ended_ = false;
  std::optional<grpc::Status> status_;  // to finish with, until that is done
  IsActiveResponse message_;
};

class Service final : public ExternalScaler::CallbackService {
 public:
  explicit Service(Numbers numbers) : numbers_(std::move(numbers)) {}

  grpc::ServerUnaryReactor* IsActive(grpc::CallbackServerContext* context,
                                     const ScaledObjectRef* ref,
                                     IsActiveResponse* response) override {
    return answer(*context, [&]() -> Status {
      const auto trigger = trigger_of(*ref);
      if (!trigger) return std::unexpected(trigger.error());
      const auto yes = active(numbers_, *trigger);
      if (!yes) return std::unexpected(yes.error());
      response->set_result(*yes);
      return {};
    });
  }

  grpc::ServerUnaryReactor* GetMetricSpec(grpc::CallbackServerContext* context,
                                          const ScaledObjectRef* ref,
                                          GetMetricSpecResponse* response) override {
    return answer(*context, [&]() -> Status {
      const auto trigger = trigger_of(*ref);
      if (!trigger) return std::unexpected(trigger.error());
      auto* spec = response->add_metricspecs();
      spec->set_metricname(trigger->metric);
      spec->set_targetsizefloat(trigger->target);
      return {};
    });
  }

  grpc::ServerUnaryReactor* GetMetrics(grpc::CallbackServerContext* context,
                                       const GetMetricsRequest* request,
                                       GetMetricsResponse* response) override {
    return answer(*context, [&]() -> Status {
      const auto trigger = trigger_of(request->scaledobjectref());
      if (!trigger) return std::unexpected(trigger.error());
      const auto value = numbers_(trigger->ns, trigger->model, trigger->metric);
      if (!value) return std::unexpected(value.error());
      auto* metric = response->add_metricvalues();
      metric->set_metricname(trigger->metric);
      metric->set_metricvaluefloat(*value);
      return {};
    });
  }

  grpc::ServerWriteReactor<IsActiveResponse>* StreamIsActive(
      grpc::CallbackServerContext* /*context*/, const ScaledObjectRef* ref) override {
    auto trigger = trigger_of(*ref);
    const std::lock_guard lock(mutex_);
    // NOLINTNEXTLINE(cppcoreguidelines-owning-memory): it deletes itself
    auto* stream = new Stream(trigger.value_or(Trigger{}), [this](Stream* one) { forget(one); });
    if (!trigger || stopped_) {
      stream->end(trigger ? grpc::Status::CANCELLED : to_grpc(trigger.error()));
      return stream;
    }
    streams_.insert(stream);
    tell(*stream);
    return stream;
  }

  void changed(const std::string& ns, const std::string& model) {
    const std::lock_guard lock(mutex_);
    for (Stream* stream : streams_) {
      if (stream->trigger().ns == ns && stream->trigger().model == model) tell(*stream);
    }
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (Stream* stream : streams_) stream->end(grpc::Status::CANCELLED);
  }

 private:
  template <typename Work>
  static grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext& context, Work work) {
    const Status done = work();
    auto* reactor = context.DefaultReactor();
    reactor->Finish(done ? grpc::Status::OK : to_grpc(done.error()));
    return reactor;
  }

  void tell(Stream& stream) const {
    if (const auto yes = active(numbers_, stream.trigger())) stream.say(*yes);
  }
  void forget(Stream* stream) {
    const std::lock_guard lock(mutex_);
    streams_.erase(stream);
  }

  const Numbers numbers_;
  std::mutex mutex_;  // before a stream's own
  std::set<Stream*> streams_;
  bool stopped_ = false;
};

}  // namespace

struct KedaServer::Impl {
  Impl(GrpcAddress a, Numbers numbers, Logger l)
      : address(std::move(a)), log(std::move(l)), service(std::move(numbers)) {}

  const GrpcAddress address;
  Logger log;
  Service service;
  GrpcListener listener;
};

KedaServer::KedaServer(GrpcAddress address, Numbers numbers, Logger log)
    : impl_(std::make_unique<Impl>(std::move(address), std::move(numbers), std::move(log))) {}

KedaServer::~KedaServer() {
  stop();
}

Status KedaServer::start() {
  const GrpcAddress& address = impl_->address;
  if (auto begun = impl_->listener.start(address, impl_->service, kMaxMessage); !begun) {
    return fail(begun.error().kind, "KEDA's scaler: " + begun.error().message);
  }
  impl_->log.info("listening for keda",
                  {{"address", address.text()}, {"port", impl_->listener.port()}});
  return {};
}

std::uint16_t KedaServer::port() const {
  return impl_->listener.port();
}

void KedaServer::changed(const std::string& ns, const std::string& model) {
  impl_->service.changed(ns, model);
}

void KedaServer::stop() {
  if (impl_->listener.server() == nullptr) return;
  impl_->service.stop();
  impl_->listener.stop();
}

}  // namespace dsm::keda
