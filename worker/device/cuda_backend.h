// The backend on an NVIDIA GPU (kernels/cuda). One stream, one rank, one GPU. A row's bits depend
// neither on the rows beside it nor on how its prompt was cut; they are not the CPU's
// (kernels/cuda/README.md says which operators' are).
//
// Row-parallel weights come in one segment.
#pragma once

#include <memory>

#include "worker/device/backend.h"
#include "worker/device/cublas_lt.h"
#include "worker/device/kernel_choice.h"
#include "worker/device/sum_ways.h"

struct CUstream_st;

namespace dsm::device {

// `threads` load; `exact`: activations go into products as two BF16 terms instead of one, and the
// sums of ranks are added in the order of their numbers. `gpu` counts those that the process sees.
// `library`: does products of many rows, which then are not exact, if it was found; null: it is not
// wanted. `sleeps`: its memory is mapped, so that sleep() can give it back. Throws as
// make_backend().
std::unique_ptr<Backend> make_cuda_backend(int threads, bool exact, int gpu,
                                           const FoundCublasLt* library = nullptr,
                                           AllReduce all_reduce = AllReduce::kAuto,
                                           bool sleeps = false, const KernelChoice& kernels = {});

// The stream of such a backend, to measure what is on it.
CUstream_st* stream_of(const Backend& backend);

}  // namespace dsm::device
