// Memory of a GPU whose address stays when the memory itself goes back to the GPU (CUDA's virtual
// memory management): so whoever holds pointers into it need not know that it was away.
#pragma once

#include <cuda.h>

#include <cstddef>

namespace dsm::device {

class MappedMemory {
 public:
  // `bytes` at least; they are there, and not cleared. Throws std::bad_alloc or CudaError.
  MappedMemory(int gpu, std::size_t bytes);
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;
  ~MappedMemory();

  // While nothing uses it. What it held is lost.
  void give_back();
  // After give_back(): at the same address. Throws as the constructor.
  void take_again();

  std::byte* get() const;
  std::size_t size() const { return size_; }

 private:
  int gpu_;
  std::size_t size_ = 0;
  CUdeviceptr address_ = 0;
  CUmemGenericAllocationHandle memory_ = 0;
  bool there_ = false;
};

}  // namespace dsm::device
