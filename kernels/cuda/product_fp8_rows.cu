// Products with weights and rows in FP8, on tensor cores that multiply FP8 by FP8. What these keep
// of a sum is less than FP32 (about 14 bits on an H100), so a sum goes no further than the 128
// inputs that have one scale on either side: times both scales it is a split's part of a sum in
// FP32, as everywhere else.
#include "kernels/cuda/product.cuh"

namespace dsm::kernels::cuda {
namespace {

struct Fp8RowWeights {
  static constexpr int kMostTiles = max_tile_rows(DType::kF8E4M3) / kTileRows;
  template <int kTiles>
  using Sums = TensorSums<kTiles>;

  struct Row {
    const std::uint8_t* values;
    const float* scales;
  };
  static __device__ Row row(const Products&, const ProductTask& task, std::int64_t at) {
    const Fp8Rows& x = task.x_fp8;
    return {x.values + at * x.ld, x.scales + at * (x.ld / kScaleBlock)};
  }
  template <int kTiles>
  static constexpr int kOperandBytes = 0;
  template <int kTiles>
  static __device__ const Row* rows(const Products&, const Row* row_of_x, int, int) {
    return row_of_x;
  }

  template <int kTiles>
  using Split = Fp8Split<8, kTiles == 1>;
  template <int kTiles>
  static __device__ Split<kTiles> split(const PackedMatrix& w, int panel, int number, int lane) {
    return Split<kTiles>::of(w, panel, number, lane);
  }

  template <int kTiles>
  static __device__ void chain(const PackedMatrix&, int, int number, const Split<kTiles>& split,
                               Ahead<Split<kTiles>>& ahead, const Row* rows, Sums<kTiles>& sums) {
    const std::uint8_t* values[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const int row = t * kTileRows + split.lane / 4;
      values[t][0] = rows[row].values;
      values[t][1] = rows[row + 8].values;
    }
    ahead.template for_each<kTiles == 1>(
        split, kTiles == 1 && split.whole(), [&](int at, const Fp8Words<8>& words, auto) {
          const FragmentB b = fp8_operand(words);
#pragma unroll
          for (int t = 0; t < kTiles; ++t) {
            const FragmentA a = load_fp8_rows(values[t][0], values[t][1], at, split.lane);
#pragma unroll
            for (int j = 0; j < kProducts; ++j) mma_e4m3(sums.v[t][j], a.v, b.v[j]);
          }
        });
    scale(split, number, rows, sums);
  }

 private:
  template <int kTiles>
  static __device__ void scale(const Split<kTiles>& split, int number, const Row* rows,
                               Sums<kTiles>& sums) {
    const int lane = split.lane;
    float of_row[kTiles][2];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* from = rows[t * kTileRows + lane / 4 + half * 8].scales;
        of_row[t][half] = from != nullptr ? from[number] : 0.0F;
      }
    }
    for_each_scale(split.scales, lane, [&](int j, int i, float scale) {
      const float of_column = scale * 0x1p-120F;  // params.h: times 2^120
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        sums.v[t][j][i] *= of_column * of_row[t][0];
        sums.v[t][j][i + 2] *= of_column * of_row[t][1];
      }
    });
  }
};

}  // namespace

void fp8_row_products(const Products& p, Stream stream) {
  launch_products<Fp8RowWeights>(p, stream);
}

}  // namespace dsm::kernels::cuda
