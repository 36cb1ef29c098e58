// Products by the weights of a layer and of the head that every token meets.
#pragma once

#include <string>
#include <vector>

#include "bench/gpu/setting.h"

namespace dsm::bench {

class ProductBench {
 public:
  explicit ProductBench(Setting& on);

  void layer(int rows);
  void head(int rows) { on_.linear("head", head_, 2, rows); }
  // Where attention is latent.
  void latents(int rows);

 private:
  struct Product {
    std::string name;
    kernels::PackedMatrix w;
    double weight_bytes;
  };
  void add(const std::string& name, int n, int k, kernels::DType dtype = kernels::DType::kBF16);
  void dense_gate_up(int rows);
  void heads_linear(const std::string& name, const std::vector<kernels::PackedMatrix>& w,
                    int x_step, int y_step, int rows);

  Setting& on_;
  std::vector<Product> products_;
  std::vector<kernels::PackedMatrix> to_latents_;  // of each head
  std::vector<kernels::PackedMatrix> to_values_;
  kernels::PackedMatrix gate_up_;
  kernels::PackedMatrix head_;
};

}  // namespace dsm::bench
