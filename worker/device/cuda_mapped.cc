#include "worker/device/cuda_mapped.h"

#include <new>
#include <string>

#include "worker/device/cuda_memory.h"
#include "worker/device/gpu_holdings.h"

namespace dsm::device {
namespace {

// The driver's version that these functions are asked for in: that of CUDA 12.
constexpr unsigned kDriverApi = 12000;

// Found at run time, because the driver's library is not linked.
template <class Function>
Function* entry_point(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult how = cudaDriverEntryPointSymbolNotFound;
  check(cudaGetDriverEntryPointByVersion(name, &found, kDriverApi, cudaEnableDefault, &how),
        "ask its driver for virtual memory");
  if (how != cudaDriverEntryPointSuccess || found == nullptr) {
    throw CudaError(std::string("GPU: its driver has no ") + name + ", it is older than CUDA 12");
  }
  return reinterpret_cast<Function*>(found);
}

struct Driver {
  decltype(cuMemGetAllocationGranularity)* granularity =
      entry_point<decltype(cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
  decltype(cuMemAddressReserve)* reserve =
      entry_point<decltype(cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(cuMemAddressFree)* free = entry_point<decltype(cuMemAddressFree)>("cuMemAddressFree");
  decltype(cuMemCreate)* create = entry_point<decltype(cuMemCreate)>("cuMemCreate");
  decltype(cuMemRelease)* release = entry_point<decltype(cuMemRelease)>("cuMemRelease");
  decltype(cuMemMap)* map = entry_point<decltype(cuMemMap)>("cuMemMap");
  decltype(cuMemUnmap)* unmap = entry_point<decltype(cuMemUnmap)>("cuMemUnmap");
  decltype(cuMemSetAccess)* set_access = entry_point<decltype(cuMemSetAccess)>("cuMemSetAccess");
};
const Driver& driver() {
  static const Driver driver;
  return driver;
}

void require(CUresult status, const char* what) {
  if (status == CUDA_SUCCESS) return;
  if (status == CUDA_ERROR_OUT_OF_MEMORY) throw std::bad_alloc();
  throw CudaError(std::string("GPU: cannot ") + what + ": driver's error " +
                  std::to_string(static_cast<int>(status)));
}

CUmemLocation place(int gpu) {
  CUmemLocation location{};
  location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  location.id = gpu;
  return location;
}

CUmemAllocationProp kind(int gpu) {
  CUmemAllocationProp kind{};
  kind.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  kind.location = place(gpu);
  return kind;
}

}  // namespace

MappedMemory::MappedMemory(int gpu, std::size_t bytes) : gpu_(gpu) {
  const CUmemAllocationProp memory = kind(gpu);
  std::size_t step = 0;
  require(driver().granularity(&step, &memory, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
          "ask for the size of its pages");
  size_ = (bytes + step - 1) / step * step;
  require(driver().reserve(&address_, size_, 0, 0, 0), "reserve addresses");
  try {
    take_again();
  } catch (...) {
    driver().free(address_, size_);
    throw;
  }
}

MappedMemory::~MappedMemory() {
  if (there_) {
    driver().unmap(address_, size_);
    driver().release(memory_);
    count_allocated(gpu_, -static_cast<std::int64_t>(size_));
  }
  driver().free(address_, size_);
}

void MappedMemory::give_back() {
  require(driver().unmap(address_, size_), "unmap memory");
  there_ = false;
  require(driver().release(memory_), "give memory back");
  count_allocated(gpu_, -static_cast<std::int64_t>(size_));
}

void MappedMemory::take_again() {
  const CUmemAllocationProp memory = kind(gpu_);
  require(driver().create(&memory_, size_, &memory, 0), "allocate memory");
  CUresult status = driver().map(address_, size_, 0, memory_, 0);
  there_ = status == CUDA_SUCCESS;
  if (there_) {
    CUmemAccessDesc access{};
    access.location = place(gpu_);
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    status = driver().set_access(address_, size_, &access, 1);
  }
  if (status == CUDA_SUCCESS) {
    count_allocated(gpu_, static_cast<std::int64_t>(size_));
    return;
  }
  if (there_) driver().unmap(address_, size_);
  there_ = false;
  driver().release(memory_);
  require(status, "map memory");
}

std::byte* MappedMemory::get() const {
  return reinterpret_cast<std::byte*>(address_);
}

}  // namespace dsm::device
