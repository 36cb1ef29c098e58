// Products with weights in FP32 (routers, checkpoints in FP32 or FP16): fused multiply-adds. A lane
// has two columns of all rows.
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

template <int kTiles>
struct PlainSums {
  float v[kTiles * kTileRows][2];

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < kTiles * kTileRows; ++r) v[r][0] = v[r][1] = 0.0F;
  }

  __device__ void store(int t, float (*to)[kSumStride], int lane) const {
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      *reinterpret_cast<float2*>(&to[r][2 * lane]) =
          make_float2(v[t * kTileRows + r][0], v[t * kTileRows + r][1]);
    }
  }
};

struct F32Weights : PlainRows {
  static constexpr int kMostTiles = max_tile_rows(DType::kF32) / kTileRows;
  template <int kTiles>
  using Sums = PlainSums<kTiles>;

  struct Split {
    static constexpr int kInputs = 1;
    const float* panel;  // at the lane's columns
    int begin;
    int end;
    int lane;
    __device__ __forceinline__ float2 load(int at) const {
      return *reinterpret_cast<const float2*>(panel + static_cast<std::int64_t>(at) * kPanel);
    }
  };
  template <int kTiles>
  static __device__ Split split(const PackedMatrix& w, int panel, int number, int lane) {
    return {static_cast<const float*>(w.data) + static_cast<std::int64_t>(panel) * w.k * kPanel +
                2 * lane,
            split_begin(w, number), split_end(w, number), lane};
  }

  template <int kTiles>
  static __device__ void chain(const PackedMatrix&, int, int, const Split& split,
                               Ahead<Split>& ahead, const float* const* rows, Sums<kTiles>& sums) {
    ahead.template for_each<false>(split, false, [&](int i, const float2& pair, auto) {
#pragma unroll
      for (int r = 0; r < kTiles * kTileRows; ++r) {
        const float x = rows[r] != nullptr ? rows[r][i] : 0.0F;
        sums.v[r][0] = fmaf(x, pair.x, sums.v[r][0]);
        sums.v[r][1] = fmaf(x, pair.y, sums.v[r][1]);
      }
    });
  }
};

}  // namespace

void f32_products(const Products& p, Stream stream) {
  launch_products<F32Weights>(p, stream);
}

}  // namespace dsm::kernels::cuda
