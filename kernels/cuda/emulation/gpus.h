// How many GPUs there are, all alike: one, as many as the variable DSM_EMULATED_GPUS says, or those
// whose PCI addresses it lists, with commas. One that its file (gpu_file.h) says is lost when the
// process begins is not there. They share one memory, which each may touch, and take turns as those
// of one do.
#pragma once

#include <string>
#include <vector>

namespace dsm::emulation {

// PCI addresses in the order of their numbers here: those of a machine whose first is 0000:01:00.0,
// unless they are listed.
const std::vector<std::string>& gpu_addresses();

inline int gpus() {
  return static_cast<int>(gpu_addresses().size());
}
inline bool is_gpu(int number) {
  return number >= 0 && number < gpus();
}

}  // namespace dsm::emulation
