// Writing patterns to memory and comparing: as fast as memory is, each thread every so-many-th
// word, neighbours next to each other.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/memory_check.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kWordsOfAThread = 32;
constexpr std::int64_t kMostBlocks = 1 << 20;  // then threads take more words

unsigned blocks_for(std::int64_t count) {
  const std::int64_t blocks =
      (count + kThreads * kWordsOfAThread - 1) / (kThreads * kWordsOfAThread);
  return static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, kMostBlocks));
}

__device__ std::int64_t first_word() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}
__device__ std::int64_t all_threads() {
  return static_cast<std::int64_t>(gridDim.x) * kThreads;
}

__global__ void write_kernel(Pattern pattern, std::uint32_t* words, std::int64_t count) {
  for (std::int64_t i = first_word(); i < count; i += all_threads()) {
    words[i] = pattern_word(pattern, static_cast<std::uint64_t>(i));
  }
}

__global__ void count_kernel(Pattern pattern, const std::uint32_t* words, std::int64_t count,
                             Mismatches* into) {
  unsigned long long wrong = 0;
  for (std::int64_t i = first_word(); i < count; i += all_threads()) {
    const std::uint32_t found = words[i];
    if (found == pattern_word(pattern, static_cast<std::uint64_t>(i))) continue;
    ++wrong;
    const auto place = static_cast<unsigned long long>(i) + 1;
    if (atomicCAS(&into->place_plus_one, 0ULL, place) == 0ULL) into->found = found;
  }
  if (wrong > 0) atomicAdd(&into->count, wrong);
}

}  // namespace

void write_pattern(Pattern pattern, std::uint32_t* words, std::int64_t count, Stream stream) {
  launch(write_kernel, dim3(blocks_for(count)), kThreads, 0, stream, pattern, words, count);
}

void count_mismatches(Pattern pattern, const std::uint32_t* words, std::int64_t count,
                      Mismatches* into, Stream stream) {
  launch(count_kernel, dim3(blocks_for(count)), kThreads, 0, stream, pattern, words, count, into);
}

}  // namespace dsm::kernels::cuda
