// A block and head of the KV cache in shared memory as operands B, for the warps of a thread block
// that go through it together: of keys the inputs are dimensions and the columns positions, of
// values positions and dimensions (kv_operands.cuh). A row of a table is four inputs, those of a
// lane in a step, by columns: row 4 step + q is that of lanes with lane % 4 = q. FP32 has a table
// for each of its two terms.
//
// A thread moves four inputs of four columns, and a lane takes operands of four products at a time:
// with columns 4g .. 4g + 3 of 32 (g = lane / 4), two of them in 16 bytes. Rows have them at places
// that differ by q, so that lanes next to each other meet different banks.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kv_operands.cuh"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {

inline constexpr int kFour = 4;
// Columns of the products that a lane takes operands of at a time.
inline constexpr int kGroupColumns = kFour * kProductColumns;

template <int kColumns>
struct OperandTable {
  static constexpr int kFours = kColumns / kFour;
  static constexpr int kRowWords = kColumns / 2;  // of 16 bytes

  uint4* words;
  int rows;  // of a term

  // Columns 4 four + 2 half and the next.
  __device__ __forceinline__ uint4* at(int term, int row, int four, int half) const {
    return words + (term * rows + row) * kRowWords + four / 8 * 16 + half * 8 +
           (four % 8 ^ row % 4 * 2);
  }
  // Of a step, columns [32 group, 32 group + 32): product j has columns 4g + j.
  template <DType kType>
  __device__ __forceinline__ void take(int step, int group, int lane, KvOperand<kType>* b) const {
    const int q = lane % 4;
    const uint4* from = words + q * kRowWords + (lane / 4 ^ q * 2) + group * 16;
#pragma unroll
    for (int t = 0; t < kKvTerms<kType>; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 v = from[(t * rows + step * 4) * kRowWords + half * 8];
        b[2 * half].v[t][0] = v.x;
        b[2 * half].v[t][1] = v.y;
        b[2 * half + 1].v[t][0] = v.z;
        b[2 * half + 1].v[t][1] = v.w;
      }
    }
  }
};
using KeyTable = OperandTable<kKvBlock>;
using ValueTable = OperandTable<kMaxPromptValueDim>;

// Four inputs of four columns as they come from memory: of BF16 pairs of inputs; of FP8 a word for
// each input, and scales (of keys a column's, of values an input's).
template <DType kType>
struct FourWords {
  uint4 v[2];
};
template <>
struct FourWords<DType::kF32> {
  float4 v[4];
};

// FP8 inputs of four columns times the scales of each column's two, a pair in BF16.
__device__ __forceinline__ uint4 scaled_words(std::uint32_t first, std::uint32_t second,
                                              const uint4& scales) {
  const auto pair = [&](unsigned column, std::uint32_t scale) {
    return scaled_pair(bytes_of(first, second, column << 4 | (column + 4) << 12), scale);
  };
  return make_uint4(pair(0, scales.x), pair(1, scales.y), pair(2, scales.z), pair(3, scales.w));
}
// The upper halves of two floats, which are all of a scale.
__device__ __forceinline__ std::uint32_t scale_pair(std::uint32_t first, std::uint32_t second) {
  return bytes_of(first, second, 0x7632);
}

// Keys of a block; zeros from dimension `dims` on.
template <DType kType>
struct KeySource {
  static constexpr int kFours = kKvBlock / kFour;

  KeyBlock<kType> keys;
  int dims;

  __device__ __forceinline__ bool in_fp8(int row) const {
    return kType == DType::kF8E4M3 && row * 4 < keys.scaled;
  }
  __device__ __forceinline__ FourWords<kType> load(int row, int four) const {
    FourWords<kType> words = {};
    if constexpr (kType == DType::kF32) {
      const auto* from = reinterpret_cast<const float4*>(keys.data) + row * 4 * kFours + four;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (row * 4 + i < dims) words.v[i] = from[i * kFours];
      }
    } else if (!in_fp8(row)) {
      const auto* from =
          reinterpret_cast<const uint4*>(keys.data + std::int64_t{keys.scaled} * kKvBlock) +
          (row * 2 - keys.scaled / 2) * kFours + four;
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        if (row * 4 + p * 2 < dims) words.v[p] = from[p * kFours];
      }
    } else {
      const auto* from =
          reinterpret_cast<const std::uint32_t*>(keys.data) + row * 4 * kFours + four;
      words.v[0] = make_uint4(from[0], from[kFours], from[2 * kFours], from[3 * kFours]);
      words.v[1] =
          reinterpret_cast<const uint4*>(keys.scales + row * 4 / kScaleBlock * kKvBlock)[four];
    }
    return words;
  }
  // Pair p of inputs, of a cache that is not FP32.
  __device__ __forceinline__ uint4 pairs(const FourWords<kType>& words, int row, int p) const {
    if (!in_fp8(row)) return words.v[p];
    const auto& [x, scale] = words.v;
    return scaled_words(p == 0 ? x.x : x.z, p == 0 ? x.y : x.w,
                        make_uint4(scale_pair(scale.x, scale.x), scale_pair(scale.y, scale.y),
                                   scale_pair(scale.z, scale.z), scale_pair(scale.w, scale.w)));
  }
};

// Values of a block; zeros from position `seen` on (what stands there was never written), and past
// the columns that there are.
template <DType kType>
struct ValueSource {
  ValueBlock<kType> values;
  int seen;

  __device__ __forceinline__ static int slot(int row, int i) {
    return value_slot(row / 4, row, i / 2) + i % 2;
  }
  __device__ __forceinline__ FourWords<kType> load(int row, int four) const {
    FourWords<kType> words = {};
    const int fours = values.width / kFour;
    if (four >= fours) return words;
    if constexpr (kType == DType::kF32) {
      const auto* from = reinterpret_cast<const float4*>(values.data) + four;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (slot(row, i) < seen) words.v[i] = from[slot(row, i) * fours];
      }
    } else if constexpr (kType == DType::kBF16) {
      const auto* from = reinterpret_cast<const uint4*>(values.data) + four;
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        if (slot(row, 2 * p) < seen) words.v[p] = from[slot(row, 2 * p) / 2 * fours];
      }
    } else {
      const auto* from = reinterpret_cast<const std::uint32_t*>(values.data) + four;
      const auto* scales = reinterpret_cast<const std::uint32_t*>(values.scales) +
                           four * kFour / kScaleBlock * kKvBlock;
      const auto put = [&](int i, std::uint32_t& word, std::uint32_t& scale) {
        if (slot(row, i) >= seen) return;
        word = from[slot(row, i) * fours];
        scale = scales[slot(row, i)];
      };
      put(0, words.v[0].x, words.v[1].x);
      put(1, words.v[0].y, words.v[1].y);
      put(2, words.v[0].z, words.v[1].z);
      put(3, words.v[0].w, words.v[1].w);
    }
    return words;
  }
  __device__ __forceinline__ uint4 pairs(const FourWords<kType>& words, int row, int p) const {
    if constexpr (kType == DType::kBF16) {
      const uint4& v = words.v[p];
      if (slot(row, 2 * p + 1) < seen) return v;
      return make_uint4(v.x & 0xffffU, v.y & 0xffffU, v.z & 0xffffU, v.w & 0xffffU);
    } else {
      const auto& [x, scale] = words.v;
      const std::uint32_t scales =
          p == 0 ? scale_pair(scale.x, scale.y) : scale_pair(scale.z, scale.w);
      return scaled_words(p == 0 ? x.x : x.z, p == 0 ? x.y : x.w,
                          make_uint4(scales, scales, scales, scales));
    }
  }
};

// How a thread block of kThreads fills a table: ask() starts what comes from memory, put() makes
// operands of it, when nobody reads the table any more.
template <DType kType, class Table, int kThreads>
struct TableFiller {
  static constexpr int kRowsApart = kThreads / Table::kFours;
  // Units of a thread on their way: all of keys of 128 dimensions, and of values.
  static constexpr int kAhead = 512 / kThreads;

  Table table;
  FourWords<kType> words[kAhead];

  __device__ __forceinline__ static int four() {
    return static_cast<int>(threadIdx.x) % Table::kFours;
  }
  __device__ __forceinline__ static int row(int i) {
    return static_cast<int>(threadIdx.x) / Table::kFours + i * kRowsApart;
  }
  template <class Source>
  __device__ __forceinline__ void ask(const Source& source) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (row(i) < table.rows) words[i] = source.load(row(i), four());
    }
  }
  template <class Source>
  __device__ __forceinline__ void put(const Source& source) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (row(i) < table.rows) store(source, words[i], row(i));
    }
    for (int i = kAhead; row(i) < table.rows; ++i) {
      store(source, source.load(row(i), four()), row(i));
    }
  }

 private:
  __device__ __forceinline__ void store(int term, int row, const uint4& a, const uint4& b) const {
    *table.at(term, row, four(), 0) = make_uint4(a.x, b.x, a.y, b.y);
    *table.at(term, row, four(), 1) = make_uint4(a.z, b.z, a.w, b.w);
  }
  template <class Source>
  __device__ __forceinline__ void store(const Source& source, const FourWords<kType>& w,
                                        int row) const {
    if constexpr (kType == DType::kF32) {
      const auto high = [](const float4& a, const float4& b) {
        return make_uint4(bf16_pair(a.x, b.x), bf16_pair(a.y, b.y), bf16_pair(a.z, b.z),
                          bf16_pair(a.w, b.w));
      };
      const auto left = [](float a, float b, std::uint32_t pair) {
        return bf16_pair(a - first_of(pair), b - second_of(pair));
      };
      const auto low = [&](const float4& a, const float4& b, const uint4& pairs) {
        return make_uint4(left(a.x, b.x, pairs.x), left(a.y, b.y, pairs.y), left(a.z, b.z, pairs.z),
                          left(a.w, b.w, pairs.w));
      };
      const uint4 first = high(w.v[0], w.v[1]);
      const uint4 second = high(w.v[2], w.v[3]);
      store(0, row, first, second);
      store(1, row, low(w.v[0], w.v[1], first), low(w.v[2], w.v[3], second));
    } else {
      store(0, row, source.pairs(w, row, 0), source.pairs(w, row, 1));
    }
  }
};

}  // namespace dsm::kernels::cuda
