// DeepSeekService over a real channel, in front of the real server with a scripted model.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "worker/grpc/deepseek.grpc.pb.h"
#include "worker/grpc/grpc_call.h"
#include "worker/grpc/grpc_server.h"
#include "worker/server/server_fixture.h"

namespace dsm::server {
namespace {

using deepseek::v1::DeepSeekService;
using deepseek::v1::InferencePiece;
using deepseek::v1::InferenceRequest;
using deepseek::v1::InferenceResponse;
using grpc::StatusCode;
using ::testing::HasSubstr;

class GrpcTest : public WorkerServerTest {
 protected:
  void start_grpc(const Setup& setup = {}) {
    start(setup);
    grpc_server = std::make_unique<grpc_api::GrpcServer>(
        GrpcAddress{.host = "127.0.0.1"},
        [this, open = setup.serve] { return open ? api.get() : nullptr; }, Logger());
    const auto started = grpc_server->start();
    ASSERT_TRUE(started.has_value()) << started.error().message;
    stub = DeepSeekService::NewStub(grpc::CreateChannel(
        "127.0.0.1:" + std::to_string(grpc_server->port()), grpc::InsecureChannelCredentials()));
  }
  ~GrpcTest() override {
    runner.permit(-1);
    if (api) api->stop();
    if (grpc_server) grpc_server->stop();
  }

  static InferenceRequest ask(const std::string& prompt = "hi") {
    InferenceRequest request;
    request.set_input_data(prompt);
    return request;
  }

  std::unique_ptr<grpc_api::GrpcServer> grpc_server;
  std::unique_ptr<DeepSeekService::Stub> stub;
};

TEST_F(GrpcTest, answers_whole) {
  start_grpc();
  say("let me see</think>hello");
  InferenceRequest request = ask();
  request.set_model_id("tiny");
  request.mutable_params()->set_thinking(true);
  request.mutable_params()->set_temperature(0.5);
  InferenceResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub->Inference(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.output_data(), "hello");
  EXPECT_EQ(response.reasoning(), "let me see");
  EXPECT_EQ(response.finish_reason(), "stop");
  EXPECT_EQ(response.model_id(), "tiny");
  EXPECT_EQ(response.usage().prompt_tokens(), runner.prompts().at(0).size());
  EXPECT_FLOAT_EQ(runner.sampling().at(0).temperature, 0.5F);
}

TEST_F(GrpcTest, streams_pieces_and_ends_with_the_usage) {
  start_grpc();
  say("one two three");
  grpc::ClientContext context;
  const auto reader = stub->InferenceStream(&context, ask());
  std::vector<InferencePiece> pieces;
  for (InferencePiece piece; reader->Read(&piece);) pieces.push_back(piece);
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_GT(pieces.size(), 2u);
  std::string text;
  for (const InferencePiece& piece : pieces) text += piece.output_data();
  EXPECT_EQ(text, "one two three");
  EXPECT_EQ(pieces.back().finish_reason(), "stop");
  EXPECT_EQ(pieces.back().usage().completion_tokens(), ids("one two three").size());
}

TEST_F(GrpcTest, refusals_have_grpcs_codes_and_our_sentence) {
  start_grpc();
  const auto refusal = [&](const InferenceRequest& request) {
    InferenceResponse response;
    grpc::ClientContext context;
    return stub->Inference(&context, request, &response);
  };
  InferenceRequest other = ask();
  other.set_model_id("other");
  EXPECT_EQ(refusal(other).error_code(), StatusCode::NOT_FOUND);
  InferenceRequest hot = ask();
  hot.mutable_params()->set_temperature(9);
  EXPECT_EQ(refusal(hot).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refusal(hot).error_message(), HasSubstr("'temperature' must be"));
  runner.fail_next({ErrorKind::kInternal, "the device broke", 0});
  EXPECT_EQ(refusal(ask()).error_code(), StatusCode::INTERNAL);
  api->stop();
  EXPECT_EQ(refusal(ask()).error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(GrpcTest, a_failure_in_mid_stream_is_the_status) {
  start_grpc();
  say("one two three four");
  runner.permit(1);
  grpc::ClientContext context;
  const auto reader = stub->InferenceStream(&context, ask());
  InferencePiece piece;
  ASSERT_TRUE(reader->Read(&piece));
  runner.fail_next({ErrorKind::kInternal, "the device broke", 0});
  while (reader->Read(&piece)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("the device broke"));
}

TEST_F(GrpcTest, a_client_that_cancels_ends_its_request) {
  start_grpc();
  runner.permit(0);
  grpc::ClientContext context;
  const auto reader = stub->InferenceStream(&context, ask());
  wait_until([&] { return drain->in_flight() == 1; });
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  wait_until([&] { return drain->in_flight() == 0; });
  runner.permit(-1);
  wait_until([&] { return engine_idle(); });
}

TEST_F(GrpcTest, a_stream_that_is_read_too_slowly_is_cut_off) {
  start_grpc({.unread_bytes = 0});  // a piece is hardly ever taken as soon as it is given
  std::string text;
  for (int i = 0; i < 100; ++i) text += " word";
  say(text);
  grpc::ClientContext context;
  const auto reader = stub->InferenceStream(&context, ask());
  InferencePiece piece;
  while (reader->Read(&piece)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  wait_until([&] { return drain->in_flight() == 0 && engine_idle(); });
}

struct FakeSink : grpc_api::Sink {
  void whole(InferenceResponse /*response*/) override {}
  void piece(InferencePiece piece) override { waiting += piece.ByteSizeLong(); }
  void end(const grpc::Status& status) override { ended = status; }
  std::size_t unread_bytes() const override { return waiting; }
  void drop() override { dropped = !ended; }

  std::size_t waiting = 0;
  bool dropped = false;
  std::optional<grpc::Status> ended;
};

TEST(GrpcCall, tells_what_waits_and_drops_it_when_it_is_aborted) {
  FakeSink sink;
  grpc_api::Call call({}, sink);
  InferencePiece piece;
  piece.set_output_data("some text");
  call.piece(piece);
  EXPECT_EQ(call.buffered_bytes(), piece.ByteSizeLong());
  call.abort();
  EXPECT_TRUE(sink.dropped);
  EXPECT_EQ(sink.ended.value_or(grpc::Status::OK).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(call.closed());
  EXPECT_EQ(call.buffered_bytes(), 0U);
}

TEST_F(GrpcTest, a_deadline_ends_a_request) {
  start_grpc();
  runner.permit(0);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  InferenceResponse response;
  EXPECT_EQ(stub->Inference(&context, ask(), &response).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  wait_until([&] { return drain->in_flight() == 0; });
}

TEST_F(GrpcTest, before_the_model_serves_it_is_unavailable) {
  start_grpc({.serve = false});
  grpc::ClientContext context;
  InferenceResponse response;
  EXPECT_EQ(stub->Inference(&context, ask(), &response).error_code(), StatusCode::UNAVAILABLE);
}

// The standard health service, asked in its wire format: its C++ classes are not installed.
TEST_F(GrpcTest, the_health_service_says_what_it_was_told) {
  start_grpc();
  const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(grpc_server->port()),
                                           grpc::InsecureChannelCredentials());
  // HealthCheckRequest {service = 1}; HealthCheckResponse {status = 1}: 1 serves, 2 does not.
  const auto health = [&](const std::string& service) {
    grpc::GenericStub generic(channel);
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    std::string wire = service;
    if (!service.empty())
      wire = "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
    const grpc::Slice slice(wire);
    const auto call = generic.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                               grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer answer;
    grpc::Status status;
    call->Finish(&answer, &status, &answer);
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok) && ok && status.ok()) << status.error_message();
    grpc::Slice said;
    EXPECT_TRUE(answer.DumpToSingleSlice(&said).ok());
    return said.size() == 2 ? static_cast<int>(said.begin()[1]) : 0;
  };
  for (const char* service : {"", DeepSeekService::service_full_name()}) {
    grpc_server->serving(false);
    EXPECT_EQ(health(service), 2);
    grpc_server->serving(true);
    EXPECT_EQ(health(service), 1);
  }
}

TEST_F(GrpcTest, a_port_that_is_taken_is_an_error_with_the_address) {
  start_grpc();
  grpc_api::GrpcServer second(
      {.host = "127.0.0.1", .port = grpc_server->port()}, [] { return nullptr; }, Logger());
  const auto started = second.start();
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error().message, HasSubstr("127.0.0.1:"));
}

}  // namespace
}  // namespace dsm::server
