// The weights of one adapter, cut and packed for a rank as the model's own are (weights.h).
//
// A linear y = w x with an adapter is y = w x + b (a x), where b has the adapter's scale in it.
//   Column-parallel and replicated linears: every rank has all of a, and b's rows for its columns.
//     Linears that the graph computes as one (q | k | v, gate | up, q_a | kv_a) have one product:
//     their a's one under the other, their b's as blocks of one matrix with zeros elsewhere.
//   Row-parallel linears: a is cut along K into the segments of the weight, and each segment's sum
//     goes on with b (a_s x_s). So sums have the weight's own tree and ranks exchange nothing more.
//
// Immutable; any number of threads may look.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/params.h"
#include "worker/model/adapter_files.h"
#include "worker/model/config.h"
#include "worker/model/rank_cut.h"

namespace dsm::model {

// y += b (a x). Without an adapter b.n is 0.
struct AdapterProduct {
  kernels::PackedMatrix a;  // inputs -> low rank
  kernels::PackedMatrix b;  // low rank -> outputs
};

// As RowParallelParams' adapters; without an adapter a.count is 0. Segment s of b reads what
// segment s of a gave; all of them are one matrix.
struct AdapterSegments {
  kernels::SegmentedMatrix a;
  kernels::SegmentedMatrix b;
};

struct AdapterLayer {
  AdapterProduct qkv;      // grouped attention
  AdapterProduct latents;  // latent attention: q_a | kv_a
  AdapterProduct q;        // latent attention
  AdapterSegments output;  // o_proj
  AdapterProduct gate_up;  // of the dense MLP or the shared expert
  AdapterSegments down;    // likewise
};

// One rank's.
struct AdapterWeights {
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::vector<AdapterLayer> layers;
  std::vector<std::unique_ptr<std::byte[], Free>> storage;  // what the matrices point to
  std::size_t bytes = 0;
};

struct AdapterCut {
  RankCut rank;
  RankCut attention;      // attention_cut()
  bool segmented = true;  // as WeightSlice's
};
// What a rank holds of an adapter.
AdapterWeights cut_adapter(const AdapterFiles& files, const ModelConfig& model,
                           const AdapterCut& cut);

}  // namespace dsm::model
