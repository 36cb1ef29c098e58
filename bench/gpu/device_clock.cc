#include "bench/gpu/device_clock.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_memory.h"

namespace dsm::bench {
namespace {

using device::check;

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
  const auto flushed = device::device_memory(std::max<std::size_t>(flush_bytes, 1));
  const Event begin = make_event();
  const Event end = make_event();
  run();  // takes what memory it needs
  std::vector<float> times;
  for (int i = 0; i < repeats; ++i) {
    check(cudaMemsetAsync(flushed.get(), i, flush_bytes, stream), "clear memory");
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
