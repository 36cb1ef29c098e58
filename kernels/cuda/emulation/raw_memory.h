// Filling and copying that AddressSanitizer does not look at: memset and memcpy are its own.
#pragma once

#include <cstddef>

namespace dsm::emulation {

inline void raw_fill(void* to, int value, std::size_t bytes) {
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
}
inline void raw_copy(void* to, const void* from, std::size_t bytes) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

// What memory holds that nobody has written: NaN as any floating-point number.
inline constexpr int kUnwritten = 0xff;

}  // namespace dsm::emulation

// Of AddressSanitizer, where the program is built with it.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* memory, std::size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* memory, std::size_t bytes);
[[gnu::weak]] void* __asan_region_is_poisoned(void* memory, std::size_t bytes);
[[gnu::weak]] void __sanitizer_symbolize_pc(void* pc, const char* format, char* to,
                                            std::size_t bytes);
}
