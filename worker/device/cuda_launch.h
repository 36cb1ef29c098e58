// How the CUDA backend puts a kernel on its stream.
#pragma once

#include "worker/device/cuda_memory.h"

namespace dsm::device {

// Puts what `kernel` needs of lists on the stream, then the kernel.
template <class Launch>
void launch(Lists& lists, const Launch& kernel) {
  lists.send();
  kernel();
  check(cudaGetLastError(), "start a kernel");
}

}  // namespace dsm::device
