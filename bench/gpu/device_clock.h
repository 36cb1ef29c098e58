// Time on the device, of what is put on a backend's stream.
#pragma once

#include <cstddef>
#include <functional>

#include "worker/device/backend.h"

namespace dsm::bench {

// The median over `repeats` of the time from when the device begins what `run` puts on the stream
// until it is done. Before each the device is kept busy with reading `flush_bytes`: that empties
// its caches, and lets the host come ahead of it.
double device_seconds(device::Backend& backend, int repeats, std::size_t flush_bytes,
                      const std::function<void()>& run);

// Whether a host thread that waits for the device sleeps. Else it asks again and again, which is
// quicker, and counts as its time on a core.
void sleep_while_waiting(bool sleep);

}  // namespace dsm::bench
