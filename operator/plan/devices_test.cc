// Devices that are not well: what is taken of a leader's line, and what of it stands in a status.
#include "operator/plan/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "operator/api/reasons.h"
#include "operator/plan/groups.h"
#include "operator/plan/news.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Of two ranks, the second one's GPU waits for a reset.
const char* const kLine = R"({"phase":"Ready","ranks":[
  {"rank":0,"device":{"name":"GPU 0","health":"Healthy","problems":[],"powerWatts":400}},
  {"rank":1,"device":{"name":"GPU 3","health":"Degraded","message":"m","eccCorrected":7,
                      "problems":["RowRemapPending","Hot"]}}]})";

TEST(SickDevices, are_read_from_a_leaders_line) {
  const auto status = leader_status(kLine, WallTime());
  ASSERT_TRUE(status);
  EXPECT_EQ(status->ranks, 2);
  ASSERT_THAT(status->sick, SizeIs(1));
  EXPECT_EQ(status->sick[0].rank, 1);
  EXPECT_EQ(status->sick[0].name, "GPU 3");
  EXPECT_EQ(status->sick[0].health, "Degraded");
  EXPECT_THAT(status->sick[0].problems, ElementsAre("RowRemapPending", "Hot"));
}

TEST(SickDevices, of_a_worker_that_names_no_problems_are_read_all_the_same) {
  const auto sick = sick_devices(json::parse(
      R"([{"rank":0,"device":{"name":"GPU 3","health":"Degraded","message":"GPU 3: hot"}}])"));
  ASSERT_THAT(sick, SizeIs(1));
  EXPECT_THAT(sick[0].problems, IsEmpty());
}

TEST(SickDevices, of_any_form_do_no_harm) {
  for (const char* ranks :
       {"null", "7", "{}", "[]", "[1,null,[]]", R"([{"device":3}])", R"([{"device":{}}])",
        R"([{"device":{"health":7}}])", R"([{"device":{"health":"Unknown"}}])",
        R"([{"device":{"health":"SomethingNew"}}])"}) {
    EXPECT_THAT(sick_devices(json::parse(ranks)), IsEmpty()) << ranks;
  }
  const auto strange = sick_devices(json::parse(
      R"([{"device":{"health":"Fatal","name":"a\u001b[2J","problems":["a b","",3,"Xid79",{}]}}])"));
  ASSERT_THAT(strange, SizeIs(1));
  EXPECT_EQ(strange[0].name, "device");
  EXPECT_THAT(strange[0].problems, ElementsAre("Xid79"));
}

TEST(SickDevices, are_bounded) {
  json ranks(2000, {{"device", {{"health", "Degraded"}, {"name", "GPU 0"}}}});
  json& device = ranks[0]["device"];
  device["name"] = std::string(5000, 'x');
  device["problems"] = json(100, "Hot");
  device["problems"][0] = std::string(5000, 'y');
  EXPECT_LE(rank_count(ranks), 1024);
  const auto sick = sick_devices(ranks);
  EXPECT_THAT(sick, SizeIs(16));
  EXPECT_EQ(sick[0].name, "device");
  EXPECT_THAT(sick[0].problems, SizeIs(8));
}

TEST(Devices, have_the_node_of_the_pod_that_holds_their_rank) {
  PodView first;
  first.node = "node-1";
  PodView second;
  second.node = "node-2";
  LeaderStatus leader;
  leader.ranks = 4;
  leader.sick = {{.rank = 1, .name = "GPU 1", .health = "Degraded", .problems = {"Hot"}},
                 {.rank = 2, .name = "GPU 0", .health = "Degraded", .problems = {}}};
  Group group;
  group.pods = {&first, &second};
  group.leader_status = &leader;
  const auto devices = devices_of(group, {"node-1", "node-2"}, nullptr);
  ASSERT_THAT(devices, SizeIs(2));
  EXPECT_EQ(devices[0].node, "node-1");
  EXPECT_EQ(devices[1].node, "node-2");
  group.pods[1] = nullptr;
  EXPECT_EQ(devices_of(group, {}, nullptr)[1].node, "") << "its pod is gone";
  group.pods.push_back(nullptr);
  EXPECT_EQ(devices_of(group, {}, nullptr)[0].node, "") << "4 ranks are not of 3 pods";
}

TEST(Devices, stay_while_a_leader_is_silent_and_its_pods_are_where_they_were) {
  api::GroupStatus before;
  before.nodes = {"node-1"};
  before.devices = {
      {.rank = 0, .name = "GPU 3", .node = "node-1", .health = "Degraded", .problems = {"Hot"}}};
  Group group;
  EXPECT_EQ(devices_of(group, {"node-1"}, &before), before.devices);
  EXPECT_THAT(devices_of(group, {"node-2"}, &before), IsEmpty());
  LeaderStatus leader;
  leader.ranks = 1;
  group.leader_status = &leader;
  EXPECT_THAT(devices_of(group, {"node-1"}, &before), IsEmpty()) << "it says that all is well";
}

api::ModelStatus status_with(std::vector<api::DeviceStatus> devices) {
  api::ModelStatus status;
  api::GroupStatus& group = status.groups.emplace_back();
  group.name = "m-abcd1234-0";
  group.phase = "Ready";
  group.reason = api::kDeviceDegraded;
  group.message = "rank 0: GPU 3: hot";
  group.devices = std::move(devices);
  return status;
}

TEST(DeviceNews, tell_of_further_devices_and_problems_and_of_none_twice) {
  const api::DeviceStatus first{
      .rank = 0, .name = "GPU 3", .node = "node-1", .health = "Degraded", .problems = {"Hot"}};
  api::DeviceStatus worse = first;
  worse.problems = {"RowRemapPending", "Hot"};
  const api::DeviceStatus second{
      .rank = 1, .name = "GPU 4", .node = "node-1", .health = "Degraded", .problems = {"Xid74"}};
  const auto texts = [](const api::ModelStatus& before, const api::ModelStatus& after) {
    std::vector<std::string> out;
    for (const EventNote& note : news(before, after)) {
      EXPECT_TRUE(note.warning);
      out.push_back(note.reason + ": " + note.message);
    }
    return out;
  };
  api::ModelStatus well = status_with({});
  well.groups[0].reason = "";
  EXPECT_THAT(texts(well, status_with({first})),
              ElementsAre("DeviceDegraded: group m-abcd1234-0: rank 0: GPU 3: hot"));
  EXPECT_THAT(texts(status_with({first}), status_with({first})), IsEmpty());
  EXPECT_THAT(texts(status_with({first}), status_with({first, second})),
              ElementsAre("DeviceDegraded: group m-abcd1234-0: rank 1: GPU 4 of node-1: Xid74"));
  EXPECT_THAT(texts(status_with({first}), status_with({worse})),
              ElementsAre("DeviceDegraded: group m-abcd1234-0: rank 0: GPU 3 of node-1: "
                          "RowRemapPending, Hot"));
  EXPECT_THAT(texts(status_with({worse, second}), status_with({first})), IsEmpty());
}

}  // namespace
}  // namespace dsm::plan
