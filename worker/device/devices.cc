#include "worker/device/devices.h"

#include <stdexcept>
#include <string>

#include "worker/device/cpu_backend.h"
#ifdef DSM_CUDA
#include "worker/device/cuda_backend.h"
#endif

namespace dsm::device {
namespace {

#ifdef DSM_CUDA
std::string cuda_missing() {
  return cuda_problem();
}
std::unique_ptr<Backend> make_cuda(const BackendSpec& spec) {
  return make_cuda_backend(spec.threads, spec.exact);
}
#else
std::string cuda_missing() {
  return "this program was built without CUDA (make build-cuda builds one that has it)";
}
std::unique_ptr<Backend> make_cuda(const BackendSpec&) {
  throw std::runtime_error(cuda_missing());
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

std::unique_ptr<Backend> make_backend(const BackendSpec& spec) {
  if (spec.device == Device::kCuda) return make_cuda(spec);
  return make_cpu_backend(spec.threads, spec.ops != nullptr ? *spec.ops : kernels::best_ops());
}

}  // namespace dsm::device
