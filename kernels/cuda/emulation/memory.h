// Memory of the emulated device: the CPU's, which the host may not touch while no kernel runs, if
// the program is built with AddressSanitizer. Nobody has written it at first (kUnwritten).
#pragma once

#include <cstddef>

namespace dsm::emulation {

// While one lives, kernels may use the device's memory (and so, alas, may the host).
class DeviceAccess {
 public:
  DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
  ~DeviceAccess();
};

}  // namespace dsm::emulation
