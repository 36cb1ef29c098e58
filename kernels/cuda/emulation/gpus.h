// How many GPUs there are, all alike: one, or as many as the variable DSM_EMULATED_GPUS says. They
// share one memory, which each may touch, and take turns as those of one do.
#pragma once

namespace dsm::emulation {

int gpus();
inline bool is_gpu(int number) {
  return number >= 0 && number < gpus();
}

}  // namespace dsm::emulation
