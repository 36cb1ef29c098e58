// What tests of backends share: a backend with what is put there and read back, and the device that
// is there beside the CPU.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/random_floats.h"
#include "worker/device/backend.h"
#include "worker/device/devices.h"

namespace dsm::device {

// The emulated GPU (kernels/cuda/emulation) takes fewer and smaller shapes, of every kind.
#ifdef DSM_CUDA_EMULATED
inline constexpr bool kEmulated = true;
#else
inline constexpr bool kEmulated = false;
#endif

// What the device is compared with: the CPU's plain table. Beside the emulated GPU the fastest one,
// whose bits are the plain one's (kernels/cpu/ops_test.cc and its neighbours) and which sanitizers
// do not slow down.
inline const kernels::Ops& reference_ops() {
  return kEmulated ? kernels::best_ops() : *kernels::available_ops()[0];
}

using kernels::random_floats;

inline std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

// A backend with what tests put there and read back.
struct Side {
  std::unique_ptr<Backend> backend;

  float* put(const std::vector<float>& values) const {
    auto* to = allocate<float>(*backend, values.size());
    backend->write(to, values.data(), values.size() * sizeof(float));
    return to;
  }
  std::vector<float> get(const float* from, std::size_t count) const {
    auto* shared = allocate_shared<float>(*backend, count);
    backend->copy(shared, from, count);
    backend->wait();
    return {shared, shared + count};
  }
};

class BackendTest : public testing::Test {
 protected:
  BackendTest()
      : cpu_{make_backend({.ops = &reference_ops()})},
        device_{make_backend({.device = *find_device("auto")})} {}

  void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, double bound,
                   const std::string& what) {
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], bound) << what << " at " << i;
    }
  }

  Side cpu_;
  Side device_;
};

}  // namespace dsm::device
