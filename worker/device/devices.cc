#include "worker/device/devices.h"

#include <string>
#include <vector>

#include "base/device_error.h"
#include "worker/device/cpu_backend.h"
#ifdef DSM_CUDA
#include "worker/comm/nccl.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_gpus.h"
#endif

namespace dsm::device {
namespace {

#ifdef DSM_CUDA
std::string cuda_missing() {
  return cuda_problem();
}
std::unique_ptr<Backend> make_cuda(const BackendSpec& spec) {
  return make_cuda_backend(spec.threads, spec.exact, spec.gpu, spec.exact ? nullptr : &cublas_lt(),
                           spec.all_reduce, spec.sleeps, spec.kernels);
}
std::vector<std::string> capabilities() {
  return cuda_capabilities();
}
Status check_nccl() {
  if (const auto nccl = comm::load_nccl(); !nccl) {
    return fail(ErrorKind::kInvalid, nccl.error().message);
  }
  return {};
}
#else
std::string cuda_missing() {
  return "this program was built without CUDA (make build-cuda builds one that has it)";
}
std::unique_ptr<Backend> make_cuda(const BackendSpec&) {
  throw DeviceError(cuda_missing());
}
std::vector<std::string> capabilities() {
  return {};
}
Status check_nccl() {
  return {};
}
#endif

}  // namespace

Result<Device> find_device(std::string_view wanted) {
  if (wanted == "cpu") return Device::kCpu;
  const std::string missing = cuda_missing();
  if (missing.empty()) return Device::kCuda;
  if (wanted == "auto") return Device::kCpu;
  return fail(ErrorKind::kInvalid, missing);
}

Status check_gpus(int gpus, int local_ranks) {
  if (local_ranks <= gpus) return {};
  return fail(ErrorKind::kInvalid, "this process has " + std::to_string(local_ranks) +
                                       " ranks and sees " + std::to_string(gpus) +
                                       " GPUs: each rank needs one of its own (fewer ranks, more "
                                       "GPUs for the pod, or CUDA_VISIBLE_DEVICES)");
}

Status check_alike(std::span<const std::string> capabilities, int local_ranks) {
  for (std::size_t rank = 1; rank < static_cast<std::size_t>(local_ranks); ++rank) {
    if (capabilities[rank] == capabilities[0]) continue;
    return fail(ErrorKind::kInvalid,
                "this process's GPUs are not alike: rank 0's has compute "
                "capability " +
                    capabilities[0] + ", rank " + std::to_string(rank) + "'s " +
                    capabilities[rank] + " (nodes with GPUs of one kind, or CUDA_VISIBLE_DEVICES)");
  }
  return {};
}

Status check_ranks(Device device, int local_ranks, int ranks) {
  if (device == Device::kCpu) return {};
  const auto gpus = capabilities();
  if (auto ok = check_gpus(static_cast<int>(gpus.size()), local_ranks); !ok) return ok;
  if (auto ok = check_alike(gpus, local_ranks); !ok) return ok;
  return ranks > 1 ? check_nccl() : Status();
}

std::string gpu_capability(Device device) {
  const auto gpus = device == Device::kCuda ? capabilities() : std::vector<std::string>();
  return gpus.empty() ? "" : gpus.front();
}

std::unique_ptr<Backend> make_backend(const BackendSpec& spec) {
  if (spec.device == Device::kCuda) return make_cuda(spec);
  return make_cpu_backend(spec.threads, spec.ops != nullptr ? *spec.ops : kernels::best_ops(),
                          spec.exact ? nullptr : spec.bf16);
}

}  // namespace dsm::device
