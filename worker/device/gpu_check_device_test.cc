// The checks' kernels on a device, emulated or there: sound memory, a word that changes between
// writing and reading, and the product of the CUDA backend.
#include <gtest/gtest.h>

#include <memory>

#include "worker/device/cpu_backend.h"
#include "worker/device/cuda_memory.h"
#include "worker/device/gpu.h"
#include "worker/device/gpu_check.h"

namespace dsm::device {
namespace {

namespace cuda = kernels::cuda;

constexpr std::int64_t kBytes = 3 << 18;
constexpr std::int64_t kWords = kBytes / 4;

TEST(GpuCheckOnADevice, finds_nothing_in_sound_memory) {
  const auto gpu = make_checked_gpu("a GPU");
  ASSERT_TRUE(gpu->take(kBytes));
  EXPECT_GE(gpu->free_bytes(), kBytes) << "what it has taken counts as free";
  for (const cuda::Pattern pattern : cuda::kPatterns) {
    gpu->write(pattern);
    EXPECT_EQ(gpu->compare(pattern).count, 0U);
  }
  gpu->write(cuda::Pattern::kPlace);
  EXPECT_EQ(gpu->compare(cuda::Pattern::kInversePlace).count, std::uint64_t{kWords});
}

TEST(GpuCheckOnADevice, finds_every_word_that_has_changed) {
  const Stream stream;
  const DeviceMemory memory = device_memory(kBytes);
  const DeviceMemory counted = device_memory(sizeof(cuda::Mismatches));
  auto* words = static_cast<std::uint32_t*>(memory.get());
  auto* into = static_cast<cuda::Mismatches*>(counted.get());
  for (const cuda::Pattern pattern : cuda::kPatterns) {
    cuda::write_pattern(pattern, words, kWords, stream.get());
    check(cudaMemsetAsync(into, 0, sizeof *into, stream.get()), "clear memory");
    // A bit of a word is wrong, and one at the end, which is read by another thread block.
    const std::uint32_t wrong = cuda::pattern_word(pattern, 777) ^ 0x40U;
    const std::uint32_t last = ~cuda::pattern_word(pattern, kWords - 1);
    check(cudaMemcpyAsync(words + 777, &wrong, sizeof wrong, cudaMemcpyHostToDevice, stream.get()),
          "copy");
    check(cudaMemcpyAsync(words + kWords - 1, &last, sizeof last, cudaMemcpyHostToDevice,
                          stream.get()),
          "copy");
    cuda::count_mismatches(pattern, words, kWords, into, stream.get());
    cuda::Mismatches found;
    check(cudaMemcpyAsync(&found, into, sizeof found, cudaMemcpyDeviceToHost, stream.get()),
          "copy");
    stream.wait();
    EXPECT_EQ(found.count, 2U);
    const std::uint64_t place = found.place_plus_one - 1;
    ASSERT_TRUE(place == 777 || place == kWords - 1) << place;
    EXPECT_EQ(found.found, place == 777 ? wrong : last) << "of the same word";
  }
}

TEST(GpuCheckOnADevice, a_product_of_the_backend_is_the_cpus) {
  const auto device = make_backend({.device = Device::kCuda});
  const auto cpu = make_cpu_backend(1);
  const Status sound = check_product(*device, *cpu);
  EXPECT_TRUE(sound) << sound.error().message;
}

TEST(Gpu, tells_its_free_memory) {
  constexpr std::int64_t kMuch = 64 << 20;  // little comes out of what the driver has taken already
  const std::int64_t before = free_gpu_bytes();
  const DeviceMemory memory = device_memory(kMuch);
  EXPECT_LE(free_gpu_bytes(), before - kMuch);
}

}  // namespace
}  // namespace dsm::device
