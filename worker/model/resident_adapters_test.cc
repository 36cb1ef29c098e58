// Adapters on the emulated GPU: where they stand, and that none takes memory when it comes.
#include "worker/model/resident_adapters.h"

#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>

#include "worker/device/devices.h"
#include "worker/device/gpu.h"
#include "worker/model/adapter_store.h"

namespace dsm::model {
namespace {

constexpr const char* kDir = "tests/goldens/families/llama";

class ResidentAdaptersTest : public testing::Test {
 protected:
  using Held = std::shared_ptr<const engine::Adapter>;

  Held load(const char* name) {
    auto loaded = store_.load(name, std::string(kDir) + "/" + name);
    EXPECT_TRUE(loaded) << loaded.error().message;
    return loaded.value_or(nullptr);
  }
  // Whether the device has the bytes of a matrix.
  bool there(const kernels::PackedMatrix& device, const kernels::PackedMatrix& host) {
    const std::size_t count = static_cast<std::size_t>(host.n) * static_cast<std::size_t>(host.k);
    auto* read = device::allocate_shared<float>(*backend_, count);
    backend_->copy(read, static_cast<const float*>(device.data), count);
    backend_->wait();
    return std::memcmp(read, host.data, count * sizeof(float)) == 0;
  }

  std::unique_ptr<device::Backend> backend_ =
      device::make_backend({.device = device::Device::kCuda});
  AdapterStore store_{load_model_config(kDir).value(), {.max_adapters = 3, .max_rank = 8}};
};

TEST_F(ResidentAdaptersTest, StandInPlacesThatAreThereFromTheStart) {
  ResidentAdapters resident(*backend_, 2, store_.most_bytes(0));
  const Held all = load("lora-all");
  const Held some = load("lora-some");
  const std::int64_t free = device::free_gpu_bytes();
  const auto host = store_.find(all->id, 0);
  const AdapterWeights& first = resident.get(host);
  EXPECT_EQ(&resident.get(host), &first);
  const AdapterWeights& second = resident.get(store_.find(some->id, 0));
  EXPECT_EQ(device::free_gpu_bytes(), free);
  for (const std::size_t layer : {std::size_t{0}, first.layers.size() - 1}) {
    ASSERT_EQ(host->layers[layer].qkv.a.dtype, kernels::DType::kF32);
    EXPECT_TRUE(there(first.layers[layer].qkv.a, host->layers[layer].qkv.a)) << layer;
    EXPECT_TRUE(there(first.layers[layer].down.b.part[0], host->layers[layer].down.b.part[0]))
        << layer;
  }
  EXPECT_NE(first.layers[0].qkv.a.data, second.layers[0].qkv.a.data);
}

TEST_F(ResidentAdaptersTest, GiveTheirPlacesBackWhenNobodyHoldsThem) {
  ResidentAdapters resident(*backend_, 1, store_.most_bytes(0));
  Held all = load("lora-all");
  const Held some = load("lora-some");
  (void)resident.get(store_.find(all->id, 0));
  EXPECT_THROW(resident.get(store_.find(some->id, 0)), std::logic_error) << "there is one place";
  resident.forget_unloaded();
  EXPECT_THROW(resident.get(store_.find(some->id, 0)), std::logic_error) << "it is still held";
  all = nullptr;
  resident.forget_unloaded();
  const auto host = store_.find(some->id, 0);
  const auto& weights = resident.get(host);
  EXPECT_EQ(weights.layers.size(), host->layers.size());
}

TEST_F(ResidentAdaptersTest, LargerThanAPlaceAreRefused) {
  ResidentAdapters resident(*backend_, 1, 256);
  const Held all = load("lora-all");
  EXPECT_THROW(resident.get(store_.find(all->id, 0)), std::logic_error);
}

// Of the CPU an operator reaches the host's weights themselves.
TEST(ResidentAdaptersOfACpu, AreTheHosts) {
  const auto backend = device::make_backend({});
  AdapterStore store(load_model_config(kDir).value(), {.max_adapters = 1, .max_rank = 8});
  const auto held = store.load("a", std::string(kDir) + "/lora-all");
  ASSERT_TRUE(held) << held.error().message;
  ResidentAdapters resident(*backend, 1, store.most_bytes(0));
  const auto host = store.find((*held)->id, 0);
  EXPECT_EQ(&resident.get(host), host.get());
}

}  // namespace
}  // namespace dsm::model
