// main() of tests that need a GPU: without one they are skipped, by the exit code that CTest and
// scripts/gpu-tests know.
#include <gtest/gtest.h>

#include <cstdio>

#include "worker/device/devices.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const auto gpu = dsm::device::find_device("cuda"); !gpu) {
    std::printf("skipped: %s\n", gpu.error().message.c_str());
    return 77;
  }
  const auto backend = dsm::device::make_backend({.device = dsm::device::Device::kCuda});
  std::printf("on %.*s\n", static_cast<int>(backend->name().size()), backend->name().data());
  return RUN_ALL_TESTS();
}
