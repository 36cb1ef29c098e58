// The devices that a rank may compute on. Which there are is found out at run time: a program that
// has the CUDA backend runs on a machine without a GPU, too.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "kernels/cpu/bf16_ops.h"
#include "kernels/ops.h"
#include "worker/device/backend.h"
#include "worker/device/kernel_choice.h"
#include "worker/device/sum_ways.h"

namespace dsm::device {

enum class Device : std::uint8_t { kCpu, kCuda };

// `wanted` is cpu, cuda or auto: a GPU where this program can use one, else the CPU. kInvalid: says
// why there is no such device.
Result<Device> find_device(std::string_view wanted);

// Whether `local_ranks` of this process, of the `ranks` of a group, can compute on it: each on a
// GPU of its own, adding up by NCCL. kInvalid: says what is missing.
Status check_ranks(Device device, int local_ranks, int ranks);
// Its parts: the number of GPUs, and that those which ranks compute on are alike.
Status check_gpus(int gpus, int local_ranks);
Status check_alike(std::span<const std::string> capabilities, int local_ranks);

// The compute capability of the process's first GPU ("9.0"); empty on a CPU.
std::string gpu_capability(Device device);

struct BackendSpec {
  Device device = Device::kCpu;
  int threads = 1;  // of the rank, the caller's included
  // CUDA: products take activations as two BF16 terms instead of one.
  bool exact = true;
  int gpu = 0;  // CUDA: of those that the process sees; ranks may share one, for tests
  AllReduce all_reduce = AllReduce::kAuto;  // CUDA
  bool sleeps = false;                      // CUDA: sleep() may be called; a CPU's always
  KernelChoice kernels = {};                // CUDA
  const kernels::Ops* ops = nullptr;        // CPU; null: the best this processor can run
  const kernels::Bf16Ops* bf16 = nullptr;   // CPU, unless exact: as make_cpu_backend()
};
// Throws std::bad_alloc without enough memory, DeviceError when the device fails.
std::unique_ptr<Backend> make_backend(const BackendSpec& spec);

}  // namespace dsm::device
