// A rank's GPU in a line of the status stream.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "worker/server/worker_status.h"

namespace dsm::server {
namespace {

using nlohmann::json;

json device_of(const health::DeviceHealth& device) {
  WorkerView view;
  view.group.ranks = {{.rank = 0, .phase = "Ready", .error = "", .device = device}};
  return json::parse(status_json(view, {}))["ranks"][0]["device"];
}

TEST(DeviceStatus, tells_clocks_memory_errors_rows_links_and_xids) {
  health::DeviceHealth device;
  device.level = health::Level::kDegraded;
  device.problems = {"RowRemapPending", "Xid63"};
  device.signs = {.sm_clock_mhz = 1200,
                  .memory_clock_mhz = 2619,
                  .throttle = health::kPowerCap | health::kHardwareThermal,
                  .ecc_corrected = 7,
                  .ecc_uncorrected = 0,
                  .rows = {{.corrected = 1, .uncorrected = 2, .pending = true, .failed = false}},
                  .links = 17,
                  .link_errors = 40};
  device.xids = {63};
  const json line = device_of(device);
  EXPECT_EQ(line["problems"], json::array({"RowRemapPending", "Xid63"}));
  EXPECT_EQ(line["smClockMHz"], 1200);
  EXPECT_EQ(line["memoryClockMHz"], 2619);
  EXPECT_EQ(line["throttled"], json::array({"power_cap", "hardware_thermal"}));
  EXPECT_EQ(line["eccCorrected"], 7);
  EXPECT_EQ(line["eccUncorrected"], 0);
  EXPECT_EQ(line["remappedRows"],
            json::parse(R"({"corrected":1,"uncorrected":2,"pending":true,"failed":false})"));
  EXPECT_EQ(line["nvlinksUp"], 17);
  EXPECT_EQ(line["nvlinkErrors"], 40);
  EXPECT_EQ(line["xids"], json::array({63}));
}

TEST(DeviceStatus, leaves_out_what_a_device_does_not_tell) {
  health::DeviceHealth device;
  device.level = health::Level::kHealthy;
  json line = device_of(device);
  for (const char* absent : {"smClockMHz", "memoryClockMHz", "throttled", "eccCorrected",
                             "eccUncorrected", "remappedRows", "nvlinksUp", "nvlinkErrors"}) {
    EXPECT_FALSE(line.contains(absent)) << absent;
  }
  device.signs.throttle = 0;
  EXPECT_EQ(device_of(device)["throttled"], json::array()) << "they are not lowered";
}

}  // namespace
}  // namespace dsm::server
