// Streams are queues of work that is done when the host waits for it: the latest that CUDA allows,
// so what a host forgets to wait for, or takes back too early, shows.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace dsm::emulation {

using Work = std::function<void()>;
void enqueue(cudaStream_t stream, Work work);
// Work that cannot be done before `ready`, which others bring about: who asks whether the stream is
// done is told no, who waits for it waits. It cannot be captured.
void enqueue_when(cudaStream_t stream, std::function<bool()> ready, Work work);

// What calls that take memory or give it back may do on a GPU: wait for all that is on the device.
// It is done here while a kernel waits for another one, so that whoever calls before having started
// what that one waits for stands still, as there.
void wait_as_for_memory();

// Puts a kernel on its stream. `body` is what a thread runs.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, Work body);

// CUDA's last error is `error` from here on, which is returned.
cudaError_t set_error(cudaError_t error);

}  // namespace dsm::emulation
