// Memory of the emulated device: the CPU's, which the host may not touch while no kernel runs, if
// the program is built with AddressSanitizer. Nobody has written it at first (kUnwritten).
#pragma once

#include <cstddef>
#include <cstdint>

namespace dsm::emulation {

// While one lives, kernels may use the device's memory (and so, alas, may the host).
class DeviceAccess {
 public:
  DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
  ~DeviceAccess();
};

// A stream's work, by one host thread: once a kernel has had access it stays open for the next
// ones, since opening and closing goes through all of the device's memory, until the host goes on.
class WorkOfStream {
 public:
  WorkOfStream();
  WorkOfStream(const WorkOfStream&) = delete;
  WorkOfStream& operator=(const WorkOfStream&) = delete;
  ~WorkOfStream();
};
// Before functions of the host that stand between kernels, and before the thread waits for another.
void close_access();

// Device memory that stands at an address of somebody else's choice (mapping.cc).
bool take_room(std::size_t bytes);  // of the device's; false: there is not so much
void give_room(std::size_t bytes);
void enter_memory(std::byte* memory, std::size_t bytes);
void leave_memory(std::byte* memory);

// Whether any of it is the device's.
bool is_of_device(std::uintptr_t memory, std::size_t bytes);

}  // namespace dsm::emulation
