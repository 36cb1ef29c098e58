// Whether a GPU is sound, found out before it gets weights: patterns in its memory, a product
// against the CPU's, and how fast it copies. A sick GPU mostly computes; that is why it is asked.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "kernels/cuda/memory_check.h"
#include "worker/device/backend.h"
#include "worker/device/devices.h"

namespace dsm::device {

enum class CheckKind : std::uint8_t {
  kOff,
  kQuick,  // a part of the memory; some tenths of a second
  kFull,   // nearly all that is free
};
// off, quick or full.
std::optional<CheckKind> check_kind(std::string_view text);

// The GPU as its checks see it: the seam at which tests make faults.
class CheckedGpu {
 public:
  virtual ~CheckedGpu() = default;
  virtual std::string_view name() const = 0;
  virtual std::int64_t free_bytes() = 0;
  // Takes memory for what follows, in place of what it took before. False: there is not so much.
  virtual bool take(std::int64_t bytes) = 0;
  virtual void write(kernels::cuda::Pattern pattern) = 0;
  virtual kernels::cuda::Mismatches compare(kernels::cuda::Pattern pattern) = 0;
  // From one half of the memory to the other, several times; bytes read and written.
  virtual double copied_bytes_per_second() = 0;
};

// kExhausted, with the check's name and its numbers, when the GPU is not sound.
Status check_memory(CheckedGpu& gpu, CheckKind kind);
Status check_copying(CheckedGpu& gpu);
// A product in BF16 on the device, against the same on the CPU.
Status check_product(Backend& device, Backend& cpu);

// Bytes per second that a GPU's memory moves by its data sheet; nullopt: it is not known here.
std::optional<double> expected_bandwidth(std::string_view gpu);
// Less than this part of the expected is not sound. A copy reaches some 0.8 to 0.9.
inline constexpr double kSoundCopying = 0.6;

// All of them, on the GPU that such a backend would use; nothing on a CPU. Throws as
// make_backend().
Status check_gpu(BackendSpec spec, CheckKind kind);

// In a program with CUDA: the GPU of the calling thread, which has made a backend there. `gpu` is
// its name.
std::unique_ptr<CheckedGpu> make_checked_gpu(std::string gpu);

}  // namespace dsm::device
