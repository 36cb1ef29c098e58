#include "base/grpc/listener.h"

#include <chrono>

namespace dsm {
namespace {

constexpr std::chrono::seconds kStopTime{2};

}  // namespace

Status GrpcListener::start(const GrpcAddress& address, grpc::Service& service, int most_bytes) {
  grpc::ServerBuilder builder;
  // Another process on the same port is an error, not a partner.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(address.text(), grpc::InsecureServerCredentials(), &port_);
  builder.SetMaxReceiveMessageSize(most_bytes);
  builder.RegisterService(&service);
  server_ = builder.BuildAndStart();
  if (server_ != nullptr && port_ != 0) return {};
  server_.reset();
  return fail(ErrorKind::kTransient, "cannot listen on " + address.text());
}

void GrpcListener::stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + kStopTime);
  server_->Wait();
  server_.reset();
}

}  // namespace dsm
