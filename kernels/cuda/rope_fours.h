// What rope turns, four pairs at a time: queries, and the keys of prompts on their way into the
// cache, with their values. The same bits as rope_query() and kv_write_heads() of launch.h, which
// call these where they can.
#pragma once

#include "kernels/cuda/launch.h"

namespace dsm::kernels::cuda {

// Halves are turned against each other, and rows are aligned to four values.
bool turns_in_fours(const RopeQueryParams& params);
void rope_query_fours(const RopeQueryParams& params, Stream stream);

// The same, of many tokens, into a cache in FP32.
bool writes_in_fours(const KvWriteHeadsParams& params);
void kv_write_heads_fours(const KvWriteHeadsParams& params, Stream stream);

}  // namespace dsm::kernels::cuda
