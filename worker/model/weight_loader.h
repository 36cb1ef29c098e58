// Takes slices of a checkpoint's tensors and packs them for a device. What is asked for is promised
// at once (the memory is reserved) and read later: requests wait in a queue, the system is told to
// read their bytes ahead, and when enough has come together the oldest are packed on all threads of
// the rank. So the disk and the packers work at the same time, large tensors are divided between
// threads, and at most about kReadAhead bytes of a checkpoint are wanted at a time. What the
// returned pointers point to is there after finish().
//
// The first error sticks and makes everything after it a no-op. A dry loader (without a device)
// only checks and counts. Weights in FP8 blocks stay in FP8, with their scales, where products can
// take them so, else they become FP32: the same numbers. Pieces that say so (round_to) are rounded
// to integers, whatever they are stored in. Weights that stand in integers (packed_weights.h) stay
// as they are where they are asked for in these (round_to), else they become FP32 as well.
//
// One thread, the rank's, uses a loader, and `progress` is called on it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "kernels/cpu/pack.h"
#include "kernels/params.h"
#include "worker/device/backend.h"
#include "worker/model/packed_weights.h"
#include "worker/model/quantization.h"
#include "worker/model/safetensors.h"

namespace dsm::model {

// In bytes as they stand in the checkpoint.
using LoadProgress = std::function<void(std::int64_t loaded, std::int64_t total)>;

class WeightLoader {
 public:
  static constexpr std::int64_t kReadAhead = 128 << 20;

  // `backend` null: dry. `total` is what a dry loader counted. All arguments outlive the loader.
  // `ahead`: bytes that may wait, another number in tests.
  WeightLoader(const Checkpoint& checkpoint, const std::optional<Fp8Blocks>& quantization,
               const std::optional<IntegerWeights>& integers, device::Backend* backend,
               std::int64_t total, const LoadProgress& progress, std::int64_t ahead = kReadAhead)
      : checkpoint_(checkpoint),
        quantization_(quantization),
        integers_(integers),
        backend_(backend),
        total_(total),
        progress_(progress),
        ahead_(ahead) {}

  const std::optional<Error>& error() const { return error_; }
  // Asked for so far.
  std::int64_t bytes() const { return bytes_; }

  // Rows [row, row + n) and columns [column, column + k) of a tensor [rows, columns], which may
  // stand in integers.
  kernels::WeightPiece slice(const std::string& name, std::int64_t rows, std::int64_t columns,
                             std::int64_t row, int n, std::int64_t column, int k);
  kernels::WeightPiece whole(const std::string& name, int rows, int columns) {
    return slice(name, rows, columns, 0, rows, 0, columns);
  }

  // Pieces side by side along n.
  kernels::PackedMatrix pack(std::span<const kernels::WeightPiece> pieces);
  kernels::PackedMatrix pack(const kernels::WeightPiece& piece) {
    return pack(std::span(&piece, 1));
  }

  // A vector as FP32.
  const float* vector(const std::string& name, std::int64_t size);

  // Ranges of vectors, one after the other, as FP32.
  struct VectorPart {
    std::string name;
    std::int64_t size;  // of the whole vector
    int begin;
    int count;
  };
  const float* vectors(std::span<const VectorPart> parts);

  // All of a tensor that does not stand in integers or FP8.
  kernels::WeightPiece plain(const std::string& name, int rows, int columns);

  // A table whose rows are looked up: BF16 as it is, else FP32.
  std::pair<const void*, kernels::DType> table(const std::string& name, std::int64_t rows,
                                               std::int64_t columns);

  // Reads what is still waiting.
  void finish();

 private:
  struct Matrix {
    std::vector<kernels::WeightPiece> pieces;
    kernels::PackedMatrix packed;
  };
  // A part of what was asked for, small enough to be shared out between threads.
  struct Job {
    std::int64_t bytes = 0;  // in the checkpoint
    // Panels [begin, end) of a matrix ...
    std::shared_ptr<const Matrix> matrix = {};
    int begin = 0;
    int end = 0;
    // ... or values that stand one after the other.
    std::span<const std::byte> values = {};
    kernels::DType dtype = kernels::DType::kF32;
    void* to = nullptr;
    bool as_stored = false;  // else to FP32
    // ... or something to look into before it is believed.
    std::shared_ptr<const PackedWeight> packed = {};
  };

  bool dry() const { return backend_ == nullptr || error_.has_value(); }
  TensorView get(const std::string& name, std::initializer_list<std::int64_t> shape);
  // As get(), but not for a weight that needs scales.
  TensorView get_plain(const std::string& name, std::initializer_list<std::int64_t> shape);
  kernels::BlockScales scales_of(const std::string& name, std::int64_t rows, std::int64_t columns);
  kernels::WeightPiece packed_slice(const IntegerWeights& kind, const std::string& name,
                                    std::int64_t rows, std::int64_t columns, std::int64_t row,
                                    int n, std::int64_t column, int k);
  void read_values(const TensorView& view, void* to, bool as_stored);
  void add(Job job);
  // Does the oldest jobs until at most `bytes` wait.
  void work_off(std::int64_t bytes);
  void refuse(const Job& job);
  // False: a weight is not a number, or is not what its integers can be.
  [[nodiscard]] bool run(const Job& job) const;

  const Checkpoint& checkpoint_;
  const std::optional<Fp8Blocks>& quantization_;
  const std::optional<IntegerWeights>& integers_;
  device::Backend* backend_;
  std::int64_t total_;
  const LoadProgress& progress_;
  std::int64_t ahead_;
  std::int64_t bytes_ = 0;
  std::int64_t done_ = 0;
  std::int64_t waiting_ = 0;
  std::vector<Job> queue_;                   // the oldest first
  std::set<std::string, std::less<>> seen_;  // weights in integers that were looked into
  std::optional<Error> error_;
};

}  // namespace dsm::model
