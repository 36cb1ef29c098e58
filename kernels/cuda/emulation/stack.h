// Stacks between which a CPU thread switches without the kernel (x86-64, System V).
#pragma once

#include <cstddef>

namespace dsm::emulation {

// `count` stacks with a page between them that faults.
class Stacks {
 public:
  explicit Stacks(std::size_t count);
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  ~Stacks();

  // Where stack i stands so that a switch to it calls entry(), which must not return.
  void* start(std::size_t i, void (*entry)()) const;

 private:
  std::size_t count_;
  std::byte* memory_;
};

}  // namespace dsm::emulation

// Keeps where this stack stands in *from and goes on where `to` does.
extern "C" void dsm_switch_stack(void** from, void* to);
