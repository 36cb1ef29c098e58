// What a step of a model has to read and to multiply: its weights once, the cache of its rows.
// Activations count nothing. Pure.
#pragma once

#include "bench/gpu/bounds.h"
#include "worker/model/config.h"

namespace dsm::bench {

// `rows` sequences, each with `tokens` tokens from position `start` on, whose last one has logits.
// Weights in BF16, a cache in FP32. Of a mixture of experts the number of different experts is the
// expected one of tokens that choose evenly.
Work step_work(const model::ModelConfig& config, int rows, int tokens, int start);

// Attention of one layer over such rows.
Work attention_work(const model::ModelConfig& config, int rows, int tokens, int start);

// A product of `rows` rows with a matrix [n, k] of so many bytes a weight; inputs and outputs are
// FP32.
Work product_work(int rows, int n, int k, double weight_bytes);

}  // namespace dsm::bench
