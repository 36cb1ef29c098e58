#include "operator/runtime/model_loop.h"

#include <gmock/gmock.h>

#include "operator/runtime/model_loop_fixture.h"

namespace dsm::runtime {
namespace {

using kube::testing::status_answer;
using ::testing::HasSubstr;

Json model(const std::string& name, int generation, int observed) {
  return {{"apiVersion", "deepseek-operator.io/v1alpha1"},
          {"kind", "DeepSeekModel"},
          {"metadata",
           {{"name", name},
            {"namespace", "ns"},
            {"uid", "u-" + name},
            {"generation", generation},
            {"resourceVersion", "50"}}},
          {"spec", {{"model", {{"uri", "image:///models/tiny"}}}}},
          {"status", {{"observedGeneration", observed}}}};
}

using ModelLoopTest = ModelLoopFixture;

TEST_F(ModelLoopTest, WhoBeginsToLeadLooksFirstAtWhatWasEditedWhileNobodyLed) {
  transport_.on_request([](const kube::HttpRequest&) { return status_answer(404, "NotFound"); });
  list({model("a", 1, 1), model("b", 1, 1), model("c", 2, 1), model("d", 1, 1)});
  look();
  ASSERT_TRUE(transport_.requests().empty());
  loop_.lead(true);
  ASSERT_TRUE(loop_.step());
  ASSERT_FALSE(transport_.requests().empty());
  EXPECT_THAT(transport_.requests().front().target, HasSubstr("/deepseekmodels/c"));
}

}  // namespace
}  // namespace dsm::runtime
