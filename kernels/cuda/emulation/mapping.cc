// Memory of the emulated device at reserved addresses: pages of the system, which nobody can touch
// while no memory is mapped there or access was not set. A mapping ends where its memory does and
// not with a page, so that what goes past it is seen.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>

#include "kernels/cuda/emulation/gpus.h"
#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/raw_memory.h"

namespace dsm::emulation {
namespace {

// A GPU's is 2 MiB.
constexpr std::size_t kGranularity = 256;
constexpr std::size_t kPage = 4096;

struct Mapped {
  CUmemGenericAllocationHandle memory = 0;  // 0: none is mapped
  std::size_t bytes = 0;                    // that were reserved
  bool accessible = false;
};
struct Mappings {
  std::mutex mutex;
  std::map<CUmemGenericAllocationHandle, std::size_t> memory;  // bytes of each
  std::map<CUdeviceptr, Mapped> addresses;
  CUmemGenericAllocationHandle last = 0;
};
Mappings& mappings() {
  static Mappings& mappings = *new Mappings;
  return mappings;
}

std::byte* at(CUdeviceptr address) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): CUDA's driver has integers for addresses.
  return reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address));
}
std::size_t pages(std::size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}

// The whole of what was reserved there; null: nothing was.
Mapped* find(CUdeviceptr address, std::size_t bytes) {
  const auto found = mappings().addresses.find(address);
  const bool whole = found != mappings().addresses.end() && found->second.bytes == bytes;
  return whole ? &found->second : nullptr;
}

struct EntryPoint {
  std::string_view name;
  void* function;
};

}  // namespace
}  // namespace dsm::emulation

using namespace dsm::emulation;

CUresult cuMemGetAllocationGranularity(std::size_t* granularity, const CUmemAllocationProp*,
                                       CUmemAllocationGranularity_flags) {
  *granularity = kGranularity;
  return CUDA_SUCCESS;
}

CUresult cuMemAddressReserve(CUdeviceptr* address, std::size_t size, std::size_t, CUdeviceptr,
                             unsigned long long) {
  if (size == 0 || size % kGranularity != 0) return CUDA_ERROR_INVALID_VALUE;
  void* reserved =
      ::mmap(nullptr, pages(size), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = reinterpret_cast<std::uintptr_t>(reserved);
  const std::lock_guard lock(mappings().mutex);
  mappings().addresses[*address] = {.bytes = size};
  return CUDA_SUCCESS;
}

CUresult cuMemAddressFree(CUdeviceptr address, std::size_t size) {
  const std::lock_guard lock(mappings().mutex);
  const Mapped* mapped = find(address, size);
  if (mapped == nullptr || mapped->memory != 0) return CUDA_ERROR_INVALID_VALUE;
  mappings().addresses.erase(address);
  ::munmap(at(address), pages(size));
  return CUDA_SUCCESS;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle* memory, std::size_t size,
                     const CUmemAllocationProp* prop, unsigned long long) {
  if (size == 0 || size % kGranularity != 0 || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
      prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE || !is_gpu(prop->location.id)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (!take_room(size)) return CUDA_ERROR_OUT_OF_MEMORY;
  const std::lock_guard lock(mappings().mutex);
  *memory = ++mappings().last;
  mappings().memory[*memory] = size;
  return CUDA_SUCCESS;
}

// Memory that is mapped must be unmapped first here; a GPU keeps it as long as it is mapped.
CUresult cuMemRelease(CUmemGenericAllocationHandle memory) {
  const std::lock_guard lock(mappings().mutex);
  const auto found = mappings().memory.find(memory);
  if (found == mappings().memory.end()) return CUDA_ERROR_INVALID_VALUE;
  for (const auto& [address, mapped] : mappings().addresses) {
    if (mapped.memory == memory) return CUDA_ERROR_INVALID_VALUE;
  }
  give_room(found->second);
  mappings().memory.erase(found);
  return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr address, std::size_t size, std::size_t offset,
                  CUmemGenericAllocationHandle memory, unsigned long long) {
  const std::lock_guard lock(mappings().mutex);
  Mapped* mapped = find(address, size);
  const auto found = mappings().memory.find(memory);
  if (mapped == nullptr || mapped->memory != 0 || offset != 0 || found == mappings().memory.end() ||
      found->second != size) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  mapped->memory = memory;
  return CUDA_SUCCESS;
}

CUresult cuMemSetAccess(CUdeviceptr address, std::size_t size, const CUmemAccessDesc* access,
                        std::size_t count) {
  const std::lock_guard lock(mappings().mutex);
  Mapped* mapped = find(address, size);
  if (mapped == nullptr || mapped->memory == 0 || mapped->accessible || count != 1 ||
      access->flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (::mprotect(at(address), pages(size), PROT_READ | PROT_WRITE) != 0) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  raw_fill(at(address), kUnwritten, size);
  if (__asan_poison_memory_region != nullptr) {
    __asan_poison_memory_region(at(address) + size, pages(size) - size);
  }
  enter_memory(at(address), size);
  mapped->accessible = true;
  return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr address, std::size_t size) {
  const std::lock_guard lock(mappings().mutex);
  Mapped* mapped = find(address, size);
  if (mapped == nullptr || mapped->memory == 0) return CUDA_ERROR_INVALID_VALUE;
  if (mapped->accessible) {
    leave_memory(at(address));
    if (__asan_unpoison_memory_region != nullptr) {
      __asan_unpoison_memory_region(at(address), pages(size));
    }
    ::madvise(at(address), pages(size), MADV_DONTNEED);
    ::mprotect(at(address), pages(size), PROT_NONE);
  }
  *mapped = {.bytes = size};
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  static const EntryPoint kEntryPoints[] = {
      {"cuMemGetAllocationGranularity", reinterpret_cast<void*>(cuMemGetAllocationGranularity)},
      {"cuMemAddressReserve", reinterpret_cast<void*>(cuMemAddressReserve)},
      {"cuMemAddressFree", reinterpret_cast<void*>(cuMemAddressFree)},
      {"cuMemCreate", reinterpret_cast<void*>(cuMemCreate)},
      {"cuMemRelease", reinterpret_cast<void*>(cuMemRelease)},
      {"cuMemMap", reinterpret_cast<void*>(cuMemMap)},
      {"cuMemUnmap", reinterpret_cast<void*>(cuMemUnmap)},
      {"cuMemSetAccess", reinterpret_cast<void*>(cuMemSetAccess)}};
  *function = nullptr;
  *result = cudaDriverEntryPointSymbolNotFound;
  for (const EntryPoint& entry : kEntryPoints) {
    if (entry.name != symbol) continue;
    *function = entry.function;
    *result = cudaDriverEntryPointSuccess;
  }
  return cudaSuccess;
}
