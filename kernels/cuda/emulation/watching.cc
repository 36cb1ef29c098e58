// What kernels that are compiled with -fsanitize=thread call: not ThreadSanitizer, which knows
// nothing of what orders CUDA's threads, but races.h.
#include <cstdint>

#include "kernels/cuda/emulation/races.h"

namespace dsm::emulation {
namespace {

bool watched = false;

// A thread's own variables are no other's: its stack begins a little below the caller's frame.
constexpr std::uintptr_t kStackBytes = std::uintptr_t{132} << 10;

inline void tell(const void* at, std::size_t bytes, unsigned kind, const void* place,
                 const void* frame) {
  if (watching == nullptr) return;
  if (reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(frame) <
      kStackBytes) {
    return;
  }
  watching->access(at, bytes, kind, place);
}

}  // namespace

constinit thread_local Races* watching = nullptr;

bool kernels_are_watched() {
  return watched;
}

}  // namespace dsm::emulation

using dsm::emulation::tell;
using dsm::emulation::watched;

// NOLINTBEGIN(bugprone-reserved-identifier, readability-identifier-naming): the compiler's names.
#define DSM_HERE __builtin_return_address(0), __builtin_frame_address(0)
#define DSM_ACCESS(bytes)                               \
  void __tsan_read##bytes(const void* at) {             \
    tell(at, bytes, 0, DSM_HERE);                       \
  }                                                     \
  void __tsan_write##bytes(void* at) {                  \
    tell(at, bytes, dsm::emulation::kWrites, DSM_HERE); \
  }                                                     \
  void __tsan_unaligned_read##bytes(const void* at) {   \
    tell(at, bytes, 0, DSM_HERE);                       \
  }                                                     \
  void __tsan_unaligned_write##bytes(void* at) {        \
    tell(at, bytes, dsm::emulation::kWrites, DSM_HERE); \
  }
// The host's part of a kernel's file has such: guards of static variables, counts of references.
#define DSM_FETCH(bits, does)                                                              \
  std::uint##bits##_t __tsan_atomic##bits##_fetch_##does(std::uint##bits##_t* at,          \
                                                         std::uint##bits##_t value, int) { \
    return __atomic_fetch_##does(at, value, __ATOMIC_SEQ_CST);                             \
  }
#define DSM_ATOMIC(bits)                                                                      \
  std::uint##bits##_t __tsan_atomic##bits##_load(const std::uint##bits##_t* at, int) {        \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                             \
  }                                                                                           \
  void __tsan_atomic##bits##_store(std::uint##bits##_t* at, std::uint##bits##_t value, int) { \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                            \
  }                                                                                           \
  std::uint##bits##_t __tsan_atomic##bits##_exchange(std::uint##bits##_t* at,                 \
                                                     std::uint##bits##_t value, int) {        \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                  \
  }                                                                                           \
  DSM_FETCH(bits, add)                                                                        \
  DSM_FETCH(bits, sub)
extern "C" {
void __tsan_init() {
  watched = true;
}
DSM_ACCESS(1)
DSM_ACCESS(2)
DSM_ACCESS(4)
DSM_ACCESS(8)
DSM_ACCESS(16)
void __tsan_read_range(const void* at, std::size_t bytes) {
  tell(at, bytes, 0, DSM_HERE);
}
void __tsan_write_range(void* at, std::size_t bytes) {
  tell(at, bytes, dsm::emulation::kWrites, DSM_HERE);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
DSM_ATOMIC(8)
DSM_ATOMIC(32)
DSM_ATOMIC(64)
void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
}
#undef DSM_ATOMIC
#undef DSM_FETCH
#undef DSM_ACCESS
#undef DSM_HERE
// NOLINTEND(bugprone-reserved-identifier, readability-identifier-naming)
