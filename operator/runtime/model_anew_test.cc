// A model that is deleted and made anew under its name, as a replica sees it that does not lead and
// was told both at once.
#include "operator/api/names.h"
#include "operator/runtime/model_loop_fixture.h"

namespace dsm::runtime {
namespace {

using kube::testing::json_answer;

Json owner(const std::string& uid) {
  return Json::array({{{"apiVersion", kube::kDeepSeekModels.api_version()},
                       {"kind", kube::kDeepSeekModels.kind},
                       {"name", "m"},
                       {"uid", uid},
                       {"controller", true}}});
}

Json model(const std::string& uid) {
  return {
      {"apiVersion", kube::kDeepSeekModels.api_version()},
      {"kind", kube::kDeepSeekModels.kind},
      {"metadata", {{"name", "m"}, {"namespace", "ns"}, {"uid", uid}, {"resourceVersion", "50"}}},
      {"spec", {{"model", {{"uri", "image:///models/tiny"}}}}}};
}

Json leader_of(const std::string& uid) {
  return {{"metadata",
           {{"name", "m-r1-0-0"},
            {"namespace", "ns"},
            {"uid", "pod-" + uid},
            {"resourceVersion", "50"},
            {"labels",
             {{std::string(api::kManagedByLabel), std::string(api::kManagedByValue)},
              {std::string(api::kModelLabel), "m"},
              {std::string(api::kRevisionLabel), "r1"},
              {std::string(api::kGroupLabel), "0"},
              {std::string(api::kPodIndexLabel), "0"}}},
            {"ownerReferences", owner(uid)}}},
          {"status",
           {{"phase", "Running"},
            {"podIP", "10.0.0.1"},
            {"containerStatuses",
             Json::array({{{"name", "worker"}, {"state", {{"running", Json::object()}}}}})}}}};
}

class ModelAnewTest : public ModelLoopFixture {
 protected:
  ModelAnewTest() {
    transport_.on_request([this](const kube::HttpRequest&) {
      ++reads_;
      return json_answer(
          200, {{"kind", "Secret"},
                {"metadata",
                 {{"name", "m-internal"}, {"namespace", "ns"}, {"ownerReferences", owner(uid_)}}},
                {"data", {{"token", uid_ == "u-1" ? "b25l" : "dHdv"}}}});
    });
  }

  // What there is now is this model and its leader.
  void made_anew(const std::string& uid) {
    uid_ = uid;
    list({model(uid)}, {leader_of(uid)});
    clock_.advance(Seconds(1));
    look();
  }

  std::string uid_;
  int reads_ = 0;
};

TEST_F(ModelAnewTest, ItsLeadersAreHeardWithItsOwnToken) {
  made_anew("u-1");
  EXPECT_EQ(lines_.token, "one");
  made_anew("u-2");
  EXPECT_EQ(lines_.token, "two");
  made_anew("u-2");
  EXPECT_EQ(reads_, 2) << "one that is its own is kept";
}

}  // namespace
}  // namespace dsm::runtime
