#include "kernels/cuda/emulation/stack.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

// The registers that a function keeps, and the stack pointer.
asm(R"(
.text
.globl dsm_switch_stack
.type dsm_switch_stack, @function
dsm_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size dsm_switch_stack, .-dsm_switch_stack
)");

namespace dsm::emulation {
namespace {

constexpr std::size_t kGuardBytes = 4096;
constexpr std::size_t kBytes = kGuardBytes + (std::size_t{128} << 10);
constexpr std::size_t kKeptRegisters = 6;

// Stacks begin at different places of their pages: else the ends of all of them, which is what is
// used, would share a few lines of a processor's caches.
std::size_t bytes_before(std::size_t stack) {
  constexpr std::size_t kLine = 64;
  constexpr std::size_t kLines = 64;
  return stack * 5 % kLines * kLine;
}

}  // namespace

Stacks::Stacks(std::size_t count) : count_(count) {
  void* memory = mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  for (std::size_t i = 0; i < count; ++i) {
    if (mprotect(memory_ + i * kBytes, kGuardBytes, PROT_NONE) != 0) throw std::bad_alloc();
  }
}

Stacks::~Stacks() {
  munmap(memory_, count_ * kBytes);
}

void* Stacks::start(std::size_t i, void (*entry)()) const {
  // From the top: a return address that ends stack traces, entry, registers.
  auto* top = reinterpret_cast<std::uintptr_t*>(memory_ + (i + 1) * kBytes - bytes_before(i));
  *--top = 0;
  *--top = reinterpret_cast<std::uintptr_t>(entry);
  for (std::size_t r = 0; r < kKeptRegisters; ++r) *--top = 0;
  return top;
}

}  // namespace dsm::emulation
