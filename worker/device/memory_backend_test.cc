// Memory of the device that is there, a GPU or else the CPU itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "worker/device/backend_fixture.h"

namespace dsm::device {
namespace {

TEST_F(BackendTest, AllocatedMemoryIsZeroed) {
  for (const std::size_t count : {1, 1000, 1 << 20}) {
    const auto* data = allocate<float>(*device_.backend, count);
    EXPECT_EQ(device_.get(data, count), std::vector<float>(count, 0.0F));
    const auto* shared = allocate_shared<float>(*device_.backend, count);
    EXPECT_EQ(std::count(shared, shared + count, 0.0F), static_cast<std::ptrdiff_t>(count));
  }
}

TEST_F(BackendTest, DataIsWrittenByTheHostAndCleared) {
  const auto x = random_floats(1000, 32);
  EXPECT_TRUE(cpu_.backend->reaches_host());
  auto* y = device_.put(x);
  device_.backend->clear(y + 10, 500);
  auto wanted = x;
  std::fill_n(wanted.begin() + 10, 500, 0.0F);
  EXPECT_EQ(device_.get(y, x.size()), wanted);
}

// A result's memory is taken anew when more is wanted.
TEST_F(BackendTest, ResultsGrow) {
  Results results;
  float* few = results.at_least(*device_.backend, 10);
  few[9] = 1;
  EXPECT_EQ(results.at_least(*device_.backend, 5), few);
  float* many = results.at_least(*device_.backend, 100000);
  many[99999] = 2;
  const auto x = random_floats(100000, 31);
  device_.backend->copy(many, device_.put(x), x.size());
  device_.backend->wait();
  EXPECT_TRUE(std::equal(x.begin(), x.end(), many));
}

}  // namespace
}  // namespace dsm::device
