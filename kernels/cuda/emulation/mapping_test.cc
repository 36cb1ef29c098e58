// Memory at reserved addresses: it counts as long as it is there, and comes again at the same
// address with nothing in it.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/emulation/raw_memory.h"

namespace dsm::emulation {
namespace {

constexpr std::size_t kBytes = 5120;  // not whole pages

std::size_t free_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  cudaMemGetInfo(&free, &total);
  return free;
}

constexpr CUmemAllocationProp kKind{CU_MEM_ALLOCATION_TYPE_PINNED,
                                    {CU_MEM_LOCATION_TYPE_DEVICE, 0}};

CUmemGenericAllocationHandle map(CUdeviceptr address) {
  CUmemGenericAllocationHandle memory = 0;
  EXPECT_EQ(cuMemCreate(&memory, kBytes, &kKind, 0), CUDA_SUCCESS);
  EXPECT_EQ(cuMemMap(address, kBytes, 0, memory, 0), CUDA_SUCCESS);
  const CUmemAccessDesc access{kKind.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  EXPECT_EQ(cuMemSetAccess(address, kBytes, &access, 1), CUDA_SUCCESS);
  return memory;
}

class MappingTest : public testing::Test {
 protected:
  MappingTest() {
    cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
    EXPECT_EQ(cuMemAddressReserve(&address_, kBytes, 0, 0, 0), CUDA_SUCCESS);
  }
  ~MappingTest() override {
    EXPECT_EQ(cuMemAddressFree(address_, kBytes), CUDA_SUCCESS);
    cudaStreamDestroy(stream_);
  }
  void* memory() const { return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address_)); }
  std::vector<unsigned char> contents() {
    std::vector<unsigned char> bytes(kBytes);
    cudaMemcpyAsync(bytes.data(), memory(), kBytes, cudaMemcpyDeviceToHost, stream_);
    cudaStreamSynchronize(stream_);
    return bytes;
  }

  cudaStream_t stream_ = nullptr;
  CUdeviceptr address_ = 0;
};

TEST_F(MappingTest, MemoryComesAgainAtTheSameAddressWithNothingInIt) {
  const std::size_t before = free_bytes();
  const auto first = map(address_);
  EXPECT_EQ(free_bytes(), before - kBytes);
  cudaMemsetAsync(memory(), 7, kBytes, stream_);
  EXPECT_EQ(contents(), std::vector<unsigned char>(kBytes, 7));
  EXPECT_EQ(cuMemRelease(first), CUDA_ERROR_INVALID_VALUE) << "it is mapped";
  EXPECT_EQ(cuMemUnmap(address_, kBytes), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(first), CUDA_SUCCESS);
  EXPECT_EQ(free_bytes(), before);
  const auto second = map(address_);
  EXPECT_EQ(contents(), std::vector<unsigned char>(kBytes, kUnwritten));
  EXPECT_EQ(cuMemUnmap(address_, kBytes), CUDA_SUCCESS);
  EXPECT_EQ(cuMemRelease(second), CUDA_SUCCESS);
}

TEST_F(MappingTest, WhoTouchesWhatIsAwayIsEnded) {
  cudaMemsetAsync(memory(), 7, kBytes, stream_);
  EXPECT_DEATH(cudaStreamSynchronize(stream_), "");
  const auto memory = map(address_);  // for what is on the stream
  cudaStreamSynchronize(stream_);
  cuMemUnmap(address_, kBytes);
  cuMemRelease(memory);
}

TEST_F(MappingTest, MoreThanTheDeviceHasIsRefused) {
  CUmemGenericAllocationHandle memory = 0;
  EXPECT_EQ(cuMemCreate(&memory, std::size_t{1} << 40, &kKind, 0), CUDA_ERROR_OUT_OF_MEMORY);
}

TEST_F(MappingTest, WhatTheDriverDoesNotHaveIsNotFound) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult how = cudaDriverEntryPointSuccess;
  EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuMemMaybe", &function, 12000, 0, &how), cudaSuccess);
  EXPECT_EQ(how, cudaDriverEntryPointSymbolNotFound);
  EXPECT_EQ(function, nullptr);
}

}  // namespace
}  // namespace dsm::emulation
