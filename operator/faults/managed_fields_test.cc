// Fields have owners on the simulated API server as on the real one: what a POST has put there an
// apply of the same program cannot take away, what an apply has made it can.
#include "operator/faults/managed_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kube/client.h"
#include "operator/faults/fault_source.h"
#include "operator/faults/wire.h"
#include "operator/plan/new_child.h"

namespace dsm::faults {
namespace {

using ::testing::ElementsAre;

Json port(const std::string& name, int number) {
  return {{"name", name}, {"port", number}, {"protocol", "TCP"}};
}

Json with_ports(std::initializer_list<Json> ports) {
  Json object = {{"apiVersion", "v1"},
                 {"kind", "Service"},
                 {"metadata", {{"name", "s"}, {"namespace", "ns"}}},
                 {"spec", {{"selector", {{"app", "s"}}}}}};
  for (const Json& each : ports) object["spec"]["ports"].push_back(each);
  return object;
}

std::vector<std::string> names(const Json& service) {
  std::vector<std::string> out;
  for (const Json& each : service["spec"]["ports"]) out.push_back(each["name"]);
  return out;
}

kube::ClientOptions manager(const std::string& name) {
  kube::ClientOptions options;
  options.field_manager = name;
  return options;
}

class ManagedFieldsTest : public ::testing::Test {
 protected:
  kube::ApiResult<Json> make(const Json& object) {
    return client_.apply(kube::kServices, "ns", "s", plan::made_by_apply(object));
  }
  const Json& there() { return *server_.objects().find(kube::kServices, "ns/s"); }

  ManualClock clock_;
  ApiServer server_{clock_};
  OneFault none_;
  Wire wire_{server_, none_, {[] { return true; }, [](Millis) {}, [] {}, [](const auto&, bool) {}}};
  kube::Client client_{wire_, clock_, manager("operator")};
  kube::Client other_{wire_, clock_, manager("other")};
};

TEST_F(ManagedFieldsTest, AnApplyMakesAnObjectOnceAndMeetsNoneThatIsThere) {
  ASSERT_TRUE(make(with_ports({port("http", 80)})));
  const auto again = make(with_ports({port("else", 81)}));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::kConflict);
  EXPECT_THAT(names(there()), ElementsAre("http"));
}

TEST_F(ManagedFieldsTest, WhatWasAppliedGoesWithTheNextApplyAndWhatWasPostedStays) {
  const Json both = with_ports({port("http", 80), port("grpc", 50051)});
  const Json one = with_ports({port("http", 80)});
  ASSERT_TRUE(client_.create(kube::kServices, "ns", both));
  ASSERT_TRUE(client_.apply(kube::kServices, "ns", "s", one));
  EXPECT_THAT(names(there()), ElementsAre("http", "grpc"));
  EXPECT_THAT(server_.owners_of(there()), ElementsAre("operator Apply", "operator Update"));

  ASSERT_TRUE(client_.remove(kube::kServices, "ns", "s", {}));
  ASSERT_TRUE(make(both));
  ASSERT_TRUE(client_.apply(kube::kServices, "ns", "s", one));
  EXPECT_THAT(names(there()), ElementsAre("http"));
  EXPECT_THAT(server_.owners_of(there()), ElementsAre("operator Apply"));
}

TEST_F(ManagedFieldsTest, WhatSomebodyElseSaysStaysAndAPortOfAnotherNumberIsAnotherPort) {
  ASSERT_TRUE(make(with_ports({port("http", 80)})));
  ASSERT_TRUE(other_.merge_patch(
      kube::kServices, "ns", "s",
      {{"metadata", {{"labels", {{"team", "a"}}}}}, {"spec", {{"ports", {port("http", 81)}}}}}));
  ASSERT_TRUE(client_.apply(kube::kServices, "ns", "s", with_ports({port("http", 80)})));
  EXPECT_THAT(names(there()), ElementsAre("http", "http"));
  EXPECT_EQ(there()["metadata"]["labels"]["team"], "a");
}

TEST_F(ManagedFieldsTest, ASelectorIsTakenWhole) {
  ASSERT_TRUE(make(with_ports({port("http", 80)})));
  ASSERT_TRUE(
      other_.merge_patch(kube::kServices, "ns", "s", {{"spec", {{"selector", {{"role", "x"}}}}}}));
  ASSERT_TRUE(client_.apply(kube::kServices, "ns", "s", with_ports({port("http", 80)})));
  EXPECT_EQ(there()["spec"]["selector"], Json({{"app", "s"}}));
}

}  // namespace
}  // namespace dsm::faults
