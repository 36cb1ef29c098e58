// A GPU of the machine, as its checks see it.
#include <chrono>
#include <utility>

#include "worker/device/cuda_memory.h"
#include "worker/device/gpu_check.h"

namespace dsm::device {
namespace {

namespace cuda = kernels::cuda;

class MachineGpu final : public CheckedGpu {
 public:
  explicit MachineGpu(std::string name)
      : name_(std::move(name)), counted_(device_memory(sizeof(cuda::Mismatches))) {}

  std::string_view name() const override { return name_; }

  std::int64_t free_bytes() override {
    std::size_t free = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "ask for its free memory");
    return static_cast<std::int64_t>(free) + bytes_;
  }

  bool take(std::int64_t bytes) override {
    memory_.reset();
    bytes_ = 0;
    if (bytes <= 0) return bytes == 0;
    try {
      memory_ = device_memory(static_cast<std::size_t>(bytes));
    } catch (const std::bad_alloc&) {
      return false;
    }
    bytes_ = bytes;
    return true;
  }

  void write(cuda::Pattern pattern) override {
    cuda::write_pattern(pattern, words(), bytes_ / kWord, stream_.get());
    check(cudaGetLastError(), "start a kernel");
  }

  cuda::Mismatches compare(cuda::Pattern pattern) override {
    auto* counted = static_cast<cuda::Mismatches*>(counted_.get());
    check(cudaMemsetAsync(counted, 0, sizeof *counted, stream_.get()), "clear memory");
    cuda::count_mismatches(pattern, words(), bytes_ / kWord, counted, stream_.get());
    check(cudaGetLastError(), "start a kernel");
    cuda::Mismatches found;
    check(cudaMemcpyAsync(&found, counted, sizeof found, cudaMemcpyDeviceToHost, stream_.get()),
          "copy from it");
    stream_.wait();
    return found;
  }

  double copied_bytes_per_second() override {
    copy();  // the first one wakes the clocks
    stream_.wait();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kCopies; ++i) copy();
    stream_.wait();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    // Each byte of a half is read, and one is written.
    return kCopies * static_cast<double>(bytes_) / took.count();
  }

 private:
  static constexpr std::int64_t kWord = sizeof(std::uint32_t);
  static constexpr int kCopies = 8;

  std::uint32_t* words() const { return static_cast<std::uint32_t*>(memory_.get()); }
  void copy() {
    const std::int64_t half = bytes_ / 2;
    auto* from = static_cast<std::byte*>(memory_.get());
    check(cudaMemcpyAsync(from + half, from, static_cast<std::size_t>(half),
                          cudaMemcpyDeviceToDevice, stream_.get()),
          "copy within it");
  }

  std::string name_;
  Stream stream_;
  DeviceMemory memory_;
  std::int64_t bytes_ = 0;
  DeviceMemory counted_;
};

}  // namespace

std::unique_ptr<CheckedGpu> make_checked_gpu(std::string gpu) {
  return std::make_unique<MachineGpu>(std::move(gpu));
}

}  // namespace dsm::device
