#include "bench/gpu/device_clock.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cuda/memory_check.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_memory.h"

namespace dsm::bench {
namespace {

using device::check;
using kernels::cuda::count_mismatches;
using kernels::cuda::Mismatches;
using kernels::cuda::Pattern;
using kernels::cuda::write_pattern;

struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;

Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "create an event");
  return Event(event);
}

}  // namespace

double device_seconds(device::Backend& backend, int repeats, std::size_t flush_bytes,
                      const std::function<void()>& run) {
  const cudaStream_t stream = device::stream_of(backend);
  // Reading it leaves the caches with what need not be written back, as a step does.
  const auto words = static_cast<std::int64_t>(flush_bytes / sizeof(std::uint32_t));
  const auto flushed = device::device_memory(flush_bytes + sizeof(Mismatches));
  auto* const pattern = static_cast<std::uint32_t*>(flushed.get());
  auto* const mismatches = reinterpret_cast<Mismatches*>(pattern + words);
  check(cudaMemsetAsync(mismatches, 0, sizeof(Mismatches), stream), "clear memory");
  write_pattern(Pattern::kPlace, pattern, words, stream);
  const Event begin = make_event();
  const Event end = make_event();
  run();  // takes what memory it needs
  std::vector<float> times;
  for (int i = 0; i < repeats; ++i) {
    count_mismatches(Pattern::kPlace, pattern, words, mismatches, stream);
    check(cudaEventRecord(begin.get(), stream), "record an event");
    run();
    check(cudaEventRecord(end.get(), stream), "record an event");
    backend.wait();
    check(cudaEventElapsedTime(&times.emplace_back(), begin.get(), end.get()), "take the time");
  }
  std::ranges::sort(times);
  return times[times.size() / 2] * 1e-3;
}

void sleep_while_waiting(bool sleep) {
  check(cudaSetDeviceFlags(sleep ? cudaDeviceScheduleBlockingSync : cudaDeviceScheduleSpin),
        "choose how to wait");
}

}  // namespace dsm::bench
