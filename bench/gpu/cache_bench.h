// Operators on the KV cache of a layer: writing, rope and attention.
#pragma once

#include "bench/gpu/setting.h"

namespace dsm::bench {

class CacheBench {
 public:
  explicit CacheBench(Setting& on);

  void run(int sequences, int tokens, int start);

 private:
  void run_expanded(int sequences, int tokens, int start);

  Setting& on_;
  kernels::RopeTable rope_;
  kernels::KvLayer kv_;
  int row_blocks_ = 0;  // of one sequence
};

}  // namespace dsm::bench
