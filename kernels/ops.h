// The CPU's operators as a table of functions, one table per instruction set, all with the same
// bits.
//
// Why the bits agree: every sum over k is one chain of fused multiply-adds in rising k per output
// element, with lanes over n; sums that must run over lanes (norms, softmax denominators) use 16
// lanes whatever the hardware's width and one fixed tree at the end; exp is our own polynomial;
// nothing is contracted or reordered by the compiler. So a result depends neither on the
// instruction set nor on how rows are batched or work is divided.
//
// Every function computes a part of its operator, named by ranges, so that a caller can divide the
// work: parts write disjoint outputs and may run on different threads at once.
#pragma once

#include <span>

#include "kernels/params.h"

namespace dsm::kernels {

struct Ops {
  const char* name;  // generic, avx2, avx512

  void (*embedding)(const EmbeddingParams&, int row_begin, int row_end);
  void (*rms_norm)(const RmsNormParams&, int row_begin, int row_end);
  void (*quantise)(const QuantiseParams&, int row_begin, int row_end);
  void (*linear)(const LinearParams&, int product, int row_begin, int row_end, int panel);
  void (*gate_up)(const GateUpParams&, int group, int slot_begin, int slot_end, int panel);
  // At most kRowBlock tokens.
  void (*row_parallel)(const RowParallelParams&, int token_begin, int token_end, int panel);
  void (*tree_sum)(const TreeSumParams&, std::int64_t begin, std::int64_t end);
  void (*norm_heads)(const NormHeadsParams&, int token_begin, int token_end);
  void (*kv_write)(const KvWriteParams&, int token_begin, int token_end);
  void (*kv_write_heads)(const KvWriteHeadsParams&, int token_begin, int token_end);
  void (*latent_read)(const LatentReadParams&, int row_begin, int row_end);
  void (*heads_expand)(const HeadsExpandParams&, int row_begin, int row_end);
  void (*rope_query)(const RopeQueryParams&, int token_begin, int token_end);
  void (*index_write)(const IndexWriteParams&, int token_begin, int token_end);
  // Blocks of the token's sequence; tokens in work share scratch memory (IndexSelectParams).
  void (*index_scores)(const IndexSelectParams&, int token, int block_begin, int block_end);
  // After all scores of the token.
  void (*index_select)(const IndexSelectParams&, int token);
  void (*attention)(const AttentionParams&, int item);
  void (*router)(const RouterParams&, int token_begin, int token_end);
};

// The tables that this processor can run, slowest first; the first is always `generic`.
std::span<const Ops* const> available_ops();
// The last of them.
const Ops& best_ops();

}  // namespace dsm::kernels
