// Devices that are not well, as `dsmctl status` shows them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ctl/testing/example.h"
#include "ctl/tree.h"
#include "ctl/tree_text.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using testing::Example;
using ::testing::HasSubstr;
using testing::kNow;

TEST(DeviceTree, a_sick_device_stands_below_the_pods_of_its_group) {
  Example example;
  json& group = example.model["status"]["groups"][0];
  group["devices"] = {{{"rank", 1},
                       {"name", "GPU 3"},
                       {"node", "node-2"},
                       {"health", "Degraded"},
                       {"problems", {"RowRemapPending", "NvlinkDown"}}},
                      {{"rank", 0}, {"name", "GPU 0"}, {"health", "Fatal"}}};
  std::vector<plan::PodView> pods;
  for (const json& pod : example.pods) pods.push_back(plan::pod_view(pod));
  const ModelTree tree = tree_of(example.model, pods);
  EXPECT_THAT(tree_text(tree, kNow, {}),
              HasSubstr("worker  Ready  node-2\n"
                        "|   |-- GPU 3  of rank 1  Degraded  node-2  RowRemapPending, NvlinkDown\n"
                        "|   `-- GPU 0  of rank 0  Fatal  no node\n"));
  const json devices = to_json(tree)["groups"][0]["devices"];
  EXPECT_EQ(devices, group["devices"]);
  EXPECT_EQ(to_json(tree)["groups"][1]["devices"], json::array());
}

}  // namespace
}  // namespace dsm::ctl
