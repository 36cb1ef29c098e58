// Activations in FP8, as GPUs run DeepSeek's FP8 checkpoints: what goes into a product with an FP8
// weight is rounded to FP8 first, with one scale for each 128 inputs of a token
// (kernels::QuantiseParams), in FP32 or, where the checkpoint's scale_fmt is ue8m0, a power of two.
// It is not the default: without it weights are exact and activations FP32, which is closer to the
// model. It is the definition that a backend with FP8 products is held to.
//
// Rounded are the inputs of the projections to q, to the latents and to the output, of the
// indexer's query and key, and of every MLP; not those of the router, the indexer's weights of
// heads, the head of the model, nor of kv_b_proj, which is applied to queries and latents where
// they are absorbed.
#pragma once

#include "base/result.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"

namespace dsm::model {

// kInvalid: the checkpoint is not quantised, or a rank's inputs would begin inside of a block.
Status check_fp8_activations(const ModelConfig& config, int ranks);

// kInvalid: a matrix whose input is to be rounded is not FP8 in the checkpoint.
Status check_fp8_weights(const ModelWeights& weights);

}  // namespace dsm::model
