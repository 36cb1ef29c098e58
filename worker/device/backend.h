// The seam between the graph of a model and the device that computes it: memory, packing of
// weights, and the operators of kernels/ops.h as whole operations on that memory. `cpu` is the
// definition of the right answer; another device is held to it. One thread, its rank's, uses a
// Backend; operations are done when they return.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "kernels/cpu/pack.h"
#include "kernels/params.h"

namespace dsm::device {

class Backend {
 public:
  virtual ~Backend() = default;

  // For the log: the device and the instruction set it uses.
  virtual std::string_view name() const = 0;

  // Zeroed, aligned to 64 bytes, alive as long as the backend. Pages are taken when they are first
  // touched.
  virtual void* allocate(std::size_t bytes) = 0;
  // Memory for the pieces side by side along n. Its panels are packed afterwards (pack_panels),
  // within parallel() if many are.
  virtual kernels::PackedMatrix reserve(std::span<const kernels::WeightPiece> pieces) = 0;
  // Calls work(i) for each i in [0, items), in any order, on all threads of the rank; returns when
  // all are done. `work` does not throw. For loading, not for steps.
  virtual void parallel(int items, const std::function<void(int)>& work) = 0;

  virtual void embedding(const kernels::EmbeddingParams& params) = 0;
  virtual void rms_norm(const kernels::RmsNormParams& params) = 0;
  virtual void quantise(const kernels::QuantiseParams& params) = 0;
  virtual void linear(const kernels::LinearParams& params) = 0;
  virtual void gate_up(const kernels::GateUpParams& params) = 0;
  virtual void row_parallel(const kernels::RowParallelParams& params) = 0;
  virtual void tree_sum(const kernels::TreeSumParams& params) = 0;
  virtual void kv_write(const kernels::KvWriteParams& params) = 0;
  virtual void kv_write_heads(const kernels::KvWriteHeadsParams& params) = 0;
  virtual void key_expand(const kernels::KeyExpandParams& params) = 0;
  virtual void rope_query(const kernels::RopeQueryParams& params) = 0;
  virtual void index_write(const kernels::IndexWriteParams& params) = 0;
  // Scores and selection.
  virtual void index_select(const kernels::IndexSelectParams& params) = 0;
  virtual void attention(const kernels::AttentionParams& params) = 0;
  virtual void router(const kernels::RouterParams& params) = 0;
};

template <class T>
T* allocate(Backend& backend, std::size_t count) {
  return static_cast<T*>(backend.allocate(count * sizeof(T)));
}

}  // namespace dsm::device
