// What a step of a model has to read and to multiply: its weights once, the cache of its rows.
// Activations count nothing. Pure.
#pragma once

#include "bench/gpu/bounds.h"
#include "worker/model/config.h"

namespace dsm::bench {

// How a model is kept: weights of layers in BF16, or in FP8, by which rows in FP8 are multiplied
// (the head and routers stay in BF16), and a value of the cache in so many bytes.
struct Storage {
  bool fp8 = false;
  double cache_bytes = 4;
};
// `rows` sequences, each with `tokens` tokens from position `start` on, whose last one has logits.
// Of a mixture of experts the number of different experts is the expected one of tokens that choose
// evenly.
Work step_work(const model::ModelConfig& config, int rows, int tokens, int start,
               const Storage& kept = {});

// Attention of one layer over such rows.
Work attention_work(const model::ModelConfig& config, int rows, int tokens, int start,
                    double cache_bytes);

// A product of `rows` rows with a matrix [n, k] of so many bytes a weight; inputs and outputs are
// FP32.
Work product_work(int rows, int n, int k, double weight_bytes);

}  // namespace dsm::bench
