// KEDA's calls over a real channel.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <mutex>
#include <optional>

#include "operator/keda/externalscaler.grpc.pb.h"
#include "operator/keda/keda_server.h"
#include "operator/keda/trigger.h"

namespace dsm::keda {
namespace {

using externalscaler::ExternalScaler;
using externalscaler::ScaledObjectRef;
using ::testing::HasSubstr;

std::string mistake(const std::map<std::string, std::string>& metadata) {
  const auto out = parse_trigger("models", metadata);
  return out ? std::string() : out.error().message;
}

TEST(Trigger, only_the_model_has_to_be_named) {
  const auto out = parse_trigger("models", {{"model", "r1"}, {"scalerAddress", "operator:9090"}});
  ASSERT_TRUE(out);
  EXPECT_EQ(*out, (Trigger{"models", "r1", "dsm_queue_depth", 5, 0}));
}

TEST(Trigger, everything_can_be_said) {
  const auto out = parse_trigger("models", {{"model", "r1"},
                                            {"metric", "dsm_kv_cache_usage_ratio"},
                                            {"target", "0.8"},
                                            {"activation", "0.1"}});
  ASSERT_TRUE(out);
  EXPECT_EQ(*out, (Trigger{"models", "r1", "dsm_kv_cache_usage_ratio", 0.8, 0.1}));
}

TEST(Trigger, a_mistake_names_the_key_and_the_remedy) {
  EXPECT_EQ(mistake({}), "metadata.model: is missing; name the DeepSeekModel");
  EXPECT_THAT(mistake({{"model", "r1"}, {"metric", "cpu"}}),
              HasSubstr("metadata.metric: is \"cpu\"; use"));
  EXPECT_THAT(mistake({{"model", "r1"}, {"queueDepth", "5"}}),
              HasSubstr("metadata.queueDepth: is not known"));
  for (const char* text : {"", "five", "0", "-1", "1e999", "5 ", "nan", "inf"}) {
    EXPECT_THAT(mistake({{"model", "r1"}, {"target", text}}), HasSubstr("metadata.target")) << text;
  }
  EXPECT_THAT(mistake({{"model", "r1"}, {"activation", "-1"}}), HasSubstr("from 0 on"));
}

class KedaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto started = server.start();
    ASSERT_TRUE(started) << started.error().message;
    stub = ExternalScaler::NewStub(grpc::CreateChannel("127.0.0.1:" + std::to_string(server.port()),
                                                       grpc::InsecureChannelCredentials()));
  }

  void set(std::optional<double> value) {
    {
      const std::lock_guard lock(mutex);
      depth = value;
    }
    server.changed("models", "r1");
  }

  static ScaledObjectRef ref(const std::string& model = "r1") {
    ScaledObjectRef out;
    out.set_name("scaled");
    out.set_namespace_("models");
    (*out.mutable_scalermetadata())["model"] = model;
    (*out.mutable_scalermetadata())["target"] = "3";
    return out;
  }

  std::mutex mutex;
  std::optional<double> depth = 0;
  KedaServer server{{.host = "127.0.0.1"},
                    [this](const std::string& ns, const std::string& model,
                           const std::string& metric) -> Result<double> {
                      EXPECT_EQ(metric, "dsm_queue_depth");
                      if (ns != "models" || model != "r1") {
                        return fail(ErrorKind::kNotFound, "there is no model " + ns + "/" + model);
                      }
                      const std::lock_guard lock(mutex);
                      if (!depth) return fail(ErrorKind::kTransient, "a leader is silent");
                      return *depth;
                    },
                    Logger()};
  std::unique_ptr<ExternalScaler::Stub> stub;
};

TEST_F(KedaTest, an_idle_model_is_not_active_and_its_number_is_zero) {
  grpc::ClientContext first;
  externalscaler::IsActiveResponse active;
  ASSERT_TRUE(stub->IsActive(&first, ref(), &active).ok());
  EXPECT_FALSE(active.result());
  grpc::ClientContext second;
  externalscaler::GetMetricsRequest request;
  *request.mutable_scaledobjectref() = ref();
  request.set_metricname("dsm_queue_depth");
  externalscaler::GetMetricsResponse metrics;
  ASSERT_TRUE(stub->GetMetrics(&second, request, &metrics).ok());
  ASSERT_EQ(metrics.metricvalues_size(), 1);
  EXPECT_EQ(metrics.metricvalues(0).metricname(), "dsm_queue_depth");
  EXPECT_EQ(metrics.metricvalues(0).metricvaluefloat(), 0);
}

TEST_F(KedaTest, the_target_is_the_triggers) {
  grpc::ClientContext context;
  externalscaler::GetMetricSpecResponse spec;
  ASSERT_TRUE(stub->GetMetricSpec(&context, ref(), &spec).ok());
  ASSERT_EQ(spec.metricspecs_size(), 1);
  EXPECT_EQ(spec.metricspecs(0).targetsizefloat(), 3);
}

TEST_F(KedaTest, what_is_not_known_is_unavailable_and_never_a_number) {
  set(std::nullopt);
  grpc::ClientContext first;
  externalscaler::IsActiveResponse active;
  const auto unknown = stub->IsActive(&first, ref(), &active);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(unknown.error_message(), "a leader is silent");
  grpc::ClientContext second;
  EXPECT_EQ(stub->IsActive(&second, ref("r2"), &active).error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext third;
  EXPECT_EQ(stub->IsActive(&third, ScaledObjectRef(), &active).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(KedaTest, a_stream_is_told_when_the_answer_changes) {
  grpc::ClientContext context;
  const auto reader = stub->StreamIsActive(&context, ref());
  externalscaler::IsActiveResponse active;
  ASSERT_TRUE(reader->Read(&active));
  EXPECT_FALSE(active.result());
  set(7);
  ASSERT_TRUE(reader->Read(&active));
  EXPECT_TRUE(active.result());
  set(9);             // still active: nothing is said
  set(std::nullopt);  // not known: what was said stands
  set(0);
  ASSERT_TRUE(reader->Read(&active));
  EXPECT_FALSE(active.result());
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(KedaTest, stopping_ends_open_streams) {
  grpc::ClientContext context;
  const auto reader = stub->StreamIsActive(&context, ref());
  externalscaler::IsActiveResponse active;
  ASSERT_TRUE(reader->Read(&active));
  server.stop();
  EXPECT_FALSE(reader->Read(&active));
  EXPECT_FALSE(reader->Finish().ok());
}

}  // namespace
}  // namespace dsm::keda
