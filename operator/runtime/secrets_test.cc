#include "operator/runtime/secrets.h"

#include <gtest/gtest.h>

#include "kube/testing/scripted_transport.h"

namespace dsm::runtime {
namespace {

using kube::Json;
using kube::testing::json_answer;
using kube::testing::ScriptedTransport;
using kube::testing::status_answer;

class SecretsTest : public ::testing::Test {
 protected:
  SecretsTest() {
    transport_.on_request([this](const kube::HttpRequest&) {
      ++reads_;
      return secret_.is_null() ? status_answer(404, "NotFound") : json_answer(200, secret_);
    });
  }
  std::string token() {
    const Result<Secrets::Entry> read = secrets_.of_model("ns/r1");
    return read ? read->token : read.error().message;
  }

  const Json present_{{"kind", "Secret"},
                      {"metadata", {{"name", "r1-internal"}, {"namespace", "ns"}}},
                      {"data", {{"token", "YWJj"}}}};
  Json secret_;
  int reads_ = 0;
  ScriptedTransport transport_;
  SystemClock clock_;
  kube::Client client_{transport_, clock_, {}};
  Secrets secrets_{client_};
};

// A replica that does not lead looks at a model before the leader has made its Secret.
TEST_F(SecretsTest, ASecretThatWasNotThereIsLookedForAgain) {
  EXPECT_EQ(token(), "");
  secret_ = present_;
  EXPECT_EQ(token(), "abc");
}

TEST_F(SecretsTest, ASecretThatIsThereIsReadOnce) {
  secret_ = present_;
  EXPECT_EQ(token(), "abc");
  EXPECT_EQ(token(), "abc");
  EXPECT_EQ(reads_, 1);
}

TEST_F(SecretsTest, AForgottenSecretIsReadAgain) {
  secret_ = present_;
  EXPECT_EQ(token(), "abc");
  secrets_.forget("ns/r1");
  secret_["data"]["token"] = "ZGVm";
  EXPECT_EQ(token(), "def");
}

}  // namespace
}  // namespace dsm::runtime
