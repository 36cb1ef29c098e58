#include "worker/model/device_check.h"

#include <gtest/gtest.h>

namespace dsm::model {
namespace {

using device::Device;

ModelConfig config_of(const char* dir) {
  return *load_model_config(dir);
}

TEST(DeviceCheck, TheCpuComputesEverything) {
  EXPECT_TRUE(check_device(config_of("tests/goldens/families/deepseek_v32"), Device::kCpu));
}

TEST(DeviceCheck, NoDeviceChoosesFromMoreThanMillionsOfTokens) {
  ModelConfig config = config_of("models/deepseek-tiny");
  config.vocab_size = (1 << 21) + 1;
  EXPECT_EQ(check_device(config, Device::kCpu).error().message,
            "vocab_size 2097153 is more than the 2097152 tokens that one can be chosen from");
  --config.vocab_size;
  EXPECT_TRUE(check_device(config, Device::kCpu));
}

TEST(DeviceCheck, WhatTheCudaBackendLacksIsRefusedByName) {
  const ModelConfig tiny = config_of("models/deepseek-tiny");
  EXPECT_TRUE(check_device(tiny, Device::kCuda));
  EXPECT_TRUE(check_device(config_of("tests/goldens/families/deepseek_v32"), Device::kCuda));
  ModelConfig wide = tiny;
  wide.kv_lora_rank = 1024;
  EXPECT_EQ(check_device(wide, Device::kCuda).error().message,
            "the CUDA backend has no attention over keys of 1056 values (720 are the most) yet; "
            "the CPU has");
}

}  // namespace
}  // namespace dsm::model
