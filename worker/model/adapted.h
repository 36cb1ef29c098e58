// What the adapters of a batch add to the products of a step (adapter_weights.h says how). A row
// without an adapter has the same bits as in a batch without any. One thread, the rank's, uses it.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/device/backend.h"
#include "worker/model/adapter_weights.h"
#include "worker/model/config.h"

namespace dsm::model {

class Adapted {
 public:
  // Ranks that share the heads of attention and the width of MLPs.
  struct Ranks {
    int attention = 1;
    int mlp = 1;
  };
  // Scratch memory for `max_tokens` tokens and adapters of up to `max_rank`; 0: there are none.
  Adapted(device::Backend& backend, const ModelConfig& config, Ranks ranks, int max_tokens,
          int max_rank);

  // Rows may have adapters at all.
  bool takes_any() const { return segments_ != nullptr; }

  // The batch's rows in order. `adapter` may be null.
  void clear() { runs_.clear(); }
  // No row has an adapter.
  bool empty() const { return runs_.empty(); }
  void add(const AdapterWeights* adapter, int begin, int size);
  // Until widen() the batch is its tokens [begin, end) alone, numbered from 0.
  void narrow(int begin, int end);
  void widen() { runs_.swap(narrowed_); }

  // y[t] += b (a x[t]) for tokens that have it.
  void linear(int layer, AdapterProduct AdapterLayer::* which, const float* x, std::int64_t ldx,
              float* y, std::int64_t ldy);
  // Sets what the first group's sums begin with. T = all tokens of the batch, which are its slots.
  void gate_up(int layer, int tokens, kernels::GateUpParams& params);
  // Sets the params' adapters. The first T slots of h are the batch's tokens in order.
  void row_parallel(int layer, AdapterSegments AdapterLayer::* which,
                    kernels::RowParallelParams& params);

 private:
  // Consecutive tokens with one adapter.
  struct Run {
    const AdapterWeights* adapter;
    int begin;
    int size;
  };
  static const AdapterLayer& at(const Run& run, int layer) {
    return run.adapter->layers[static_cast<std::size_t>(layer)];
  }
  void product(const Run& run, const AdapterProduct& w, const float* x, std::int64_t ldx, float* y,
               std::int64_t ldy, bool accumulate);

  device::Backend& backend_;
  std::vector<Run> runs_;
  std::vector<Run> narrowed_;  // of narrow(), or what it has put aside
  float* low_ = nullptr;       // [T, three ranks] a x
  float* start_ = nullptr;     // [T, gate_up of the widest MLP]
  float* segments_ = nullptr;  // [T, local segments * rank] a_s x_s
  std::int64_t segments_width_ = 0;
  std::vector<std::int32_t> tokens_;  // [T] of the slots of segments_
  std::vector<kernels::Group> groups_;
  std::vector<kernels::SegmentedMatrix> weights_;  // of groups_
};

}  // namespace dsm::model
