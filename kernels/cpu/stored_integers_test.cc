// Integers of a checkpoint: read by the definition of their words, whichever way these are laid
// out, and packed without being rounded again.
#include "kernels/cpu/stored_integers.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/integers.h"
#include "kernels/cpu/ops_fixture.h"
#include "kernels/ops.h"

namespace dsm::kernels {
namespace {

std::size_t place(int at) {
  return static_cast<std::size_t>(at);
}

constexpr DType kIntegers[] = {DType::kInt8, DType::kInt4};

// In which order a test's words stand.
enum class Order { kOutputs, kInputs };  // what the tensor's rows are
constexpr Order kOrders[] = {Order::kOutputs, Order::kInputs};

// A weight of `outputs` x `inputs`, and its words by the definition: a word is the sum of its codes
// times powers of two.
struct Stored {
  Stored(Order o, DType type, int n, int k, int block, unsigned seed)
      : order(o), dtype(type), outputs(n), inputs(k), group(block) {
    std::mt19937 random(seed);
    const int bits = dtype == DType::kInt4 ? 4 : 8;
    const int lowest = -(1 << (bits - 1));
    const int per_word = 32 / bits;
    const int across = (inputs + per_word - 1) / per_word;
    words.assign(place(outputs * across), 0U);
    for (int j = 0; j < outputs; ++j) {
      for (int i = 0; i < inputs; ++i) {
        const int number = lowest + static_cast<int>(random() % (1U << bits));
        numbers.push_back(number);
        const int word =
            order == Order::kOutputs ? j * across + i / per_word : i / per_word * outputs + j;
        words[place(word)] += static_cast<std::uint32_t>(number - lowest) << (i % per_word * bits);
      }
    }
    const int blocks = (inputs + group - 1) / group;
    scales.resize(place(outputs * blocks));
    scale_bits.resize(scales.size());
    for (int j = 0; j < outputs; ++j) {
      for (int b = 0; b < blocks; ++b) {
        // A number that BF16 holds.
        const auto half = static_cast<std::uint16_t>(0x3c00U + random() % 0x100U);
        const int at = order == Order::kOutputs ? j * blocks + b : b * outputs + j;
        scale_bits[place(at)] = half;
        scales[place(j * blocks + b)] = std::bit_cast<float>(std::uint32_t{half} << 16);
      }
    }
  }

  int number(int j, int i) const { return numbers[place(j * inputs + i)]; }
  float value(int j, int i) const {
    const int blocks = (inputs + group - 1) / group;
    return static_cast<float>(number(j, i)) * scales[place(j * blocks + i / group)];
  }
  WeightPiece slice(int j, int n, int i, int k) const {
    const bool rows_are_outputs = order == Order::kOutputs;
    const int columns = rows_are_outputs ? inputs : outputs;
    return {
        .data = reinterpret_cast<const std::byte*>(words.data()),
        .dtype = dtype,
        .n_stride = rows_are_outputs ? inputs : 1,
        .k_stride = rows_are_outputs ? 1 : outputs,
        .n = n,
        .k = k,
        .origin = rows_are_outputs ? std::int64_t{j} * inputs + i : std::int64_t{i} * outputs + j,
        .scales = {.data = reinterpret_cast<const std::byte*>(scale_bits.data()),
                   .dtype = DType::kBF16,
                   .block_rows = rows_are_outputs ? 1 : group,
                   .block_columns = rows_are_outputs ? group : 1,
                   .columns = columns},
        .round_to = dtype};
  }

  Order order;
  DType dtype;
  int outputs;
  int inputs;
  int group;
  std::vector<int> numbers;
  std::vector<std::uint32_t> words;
  std::vector<float> scales;              // [outputs][blocks]
  std::vector<std::uint16_t> scale_bits;  // in the order of the tensor
};

struct Packed {
  explicit Packed(const std::vector<WeightPiece>& pieces) {
    const PackedMatrix shape = packed_matrix(pieces, nullptr);
    storage.assign(packed_bytes(shape.dtype, shape.n, shape.k), std::byte{0x55});
    matrix = packed_matrix(pieces, storage.data());
    finite = pack_panels(pieces, matrix, 0, panels_of(matrix));
  }
  std::vector<std::byte> storage;
  PackedMatrix matrix;
  bool finite;
};

// What a packed matrix multiplies input i by for output j: its product with a unit vector.
std::vector<float> weights_of(const PackedMatrix& w, int i) {
  std::vector<float> x(static_cast<std::size_t>(w.k), 0.0F);
  x[static_cast<std::size_t>(i)] = 1;
  std::vector<float> y(static_cast<std::size_t>(w.n));
  const LinearParams p{.x = x.data(), .ldx = w.k, .w = &w, .y = y.data(), .ldy = w.n, .rows = 1};
  for (int panel = 0; panel < panels_of(w); ++panel) {
    available_ops()[0]->linear(p, 0, 0, 1, panel);
  }
  return y;
}

// With zero points: codes of 4 bits less these, in one of three ways to lay words out, by their
// definitions.
enum class Words { kInputsOfRows, kInputsOfColumns, kOutputs };
constexpr Words kWords[] = {Words::kInputsOfRows, Words::kInputsOfColumns, Words::kOutputs};

struct WithZeros {
  WithZeros(Words w, int n, int k, int block, int less, unsigned seed)
      : layout(w), outputs(n), inputs(k), group(block), missing(less) {
    std::mt19937 random(seed);
    const int blocks = (inputs + group - 1) / group;
    const bool by_output = layout == Words::kInputsOfRows;
    words.assign(place(by_output                           ? outputs * ((inputs + 7) / 8)
                       : layout == Words::kInputsOfColumns ? (inputs + 7) / 8 * outputs
                                                           : inputs * (outputs / 8)),
                 0U);
    zero_words.assign(place((outputs + 7) / 8 * blocks), 0U);
    scales.resize(place(outputs * blocks));
    for (int j = 0; j < outputs; ++j) {
      // Where each of eight outputs stands in its word.
      constexpr int kAwq[] = {0, 4, 1, 5, 2, 6, 3, 7};
      const int in_word = layout == Words::kOutputs ? kAwq[j % 8] : j % 8;
      for (int b = 0; b < blocks; ++b) {
        const int zero = less + static_cast<int>(random() % static_cast<unsigned>(16 - less));
        zeros.push_back(zero);
        const int word = by_output ? j / 8 * blocks + b : b * (outputs / 8) + j / 8;
        zero_words[place(word)] += static_cast<std::uint32_t>(zero - less) << (in_word * 4);
        scales[place(by_output ? j * blocks + b : b * outputs + j)] =
            static_cast<float>(1 + random() % 7) / 4;
      }
      for (int i = 0; i < inputs; ++i) {
        const auto code = static_cast<std::uint32_t>(random() % 16);
        codes.push_back(static_cast<int>(code));
        if (layout == Words::kOutputs) {
          words[place(i * (outputs / 8) + j / 8)] += code << (in_word * 4);
        } else {
          const int word = by_output ? j * ((inputs + 7) / 8) + i / 8 : i / 8 * outputs + j;
          words[place(word)] += code << (i % 8 * 4);
        }
      }
    }
  }

  int blocks() const { return (inputs + group - 1) / group; }
  float value(int j, int i) const {
    const int b = i / group;
    const float scale = layout == Words::kInputsOfRows ? scales[place(j * blocks() + b)]
                                                       : scales[place(b * outputs + j)];
    return static_cast<float>(codes[place(j * inputs + i)] - zeros[place(j * blocks() + b)]) *
           scale;
  }
  WeightPiece slice(int j, int n, int i, int k) const {
    const bool by_output = layout == Words::kInputsOfRows;
    return {.data = reinterpret_cast<const std::byte*>(words.data()),
            .dtype = DType::kInt8,
            .n_stride = by_output ? inputs : 1,
            .k_stride = by_output ? 1 : outputs,
            .n = n,
            .k = k,
            .origin = by_output ? std::int64_t{j} * inputs + i : std::int64_t{i} * outputs + j,
            .scales = {.data = reinterpret_cast<const std::byte*>(scales.data()),
                       .dtype = DType::kF32,
                       .block_rows = by_output ? 1 : group,
                       .block_columns = by_output ? group : 1,
                       .columns = by_output ? inputs : outputs},
            .round_to = DType::kInt8,
            .zeros = {.data = reinterpret_cast<const std::byte*>(zero_words.data()),
                      .output_words = by_output ? blocks() : 1,
                      .block_words = by_output ? 1 : outputs / 8,
                      .less = missing},
            .outputs_in_words = layout == Words::kOutputs};
  }

  Words layout;
  int outputs;
  int inputs;
  int group;
  int missing;
  std::vector<int> codes;  // [outputs][inputs]
  std::vector<int> zeros;  // [outputs][blocks]
  std::vector<std::uint32_t> words;
  std::vector<std::uint32_t> zero_words;
  std::vector<float> scales;  // in the order of the tensor
};

struct Cut {
  int j, n, i, k;
};
constexpr Cut kCuts[] = {
    {0, 96, 0, 328}, {5, 70, 77, 200}, {64, 32, 127, 2}, {95, 1, 320, 8}, {1, 3, 256, 72}};

TEST(StoredIntegers, AreThoseOfTheirWords) {
  for (const DType dtype : kIntegers) {
    for (const Order order : kOrders) {
      const Stored stored(order, dtype, 96, 328, 128, 1);
      for (const auto& [j, n, i, k] : kCuts) {
        const WeightPiece piece = stored.slice(j, n, i, k);
        for (int output = 0; output < n; ++output) {
          const StoredIntegers integers(piece, output);
          for (int input = 0; input < k; ++input) {
            ASSERT_EQ(integers.at(input), stored.number(j + output, i + input));
          }
        }
      }
    }
  }
}

TEST(StoredIntegers, ArePackedAsTheyAreWhereverASliceBegins) {
  for (const DType dtype : kIntegers) {
    for (const Order order : kOrders) {
      for (const int group : {128, 328}) {
        const Stored stored(order, dtype, 96, 328, group, 2);
        for (const auto& [j, n, i, k] : kCuts) {
          const Packed packed({stored.slice(j, n, i, k)});
          ASSERT_TRUE(packed.finite);
          ASSERT_EQ(packed.matrix.dtype, dtype);
          for (int input = 0; input < k; ++input) {
            const auto got = weights_of(packed.matrix, input);
            for (int output = 0; output < n; ++output) {
              ASSERT_EQ(got[static_cast<std::size_t>(output)], stored.value(j + output, i + input))
                  << j << "+" << output << ", " << i << "+" << input;
            }
          }
        }
      }
    }
  }
}

TEST(StoredIntegers, LessTheirZeroPointsBecomeInt8) {
  for (const Words words : kWords) {
    for (const int group : {128, 328}) {
      for (const int less : {0, 1}) {
        const WithZeros stored(words, 96, 328, group, less, 12);
        for (const auto& [j, n, i, k] : kCuts) {
          const Packed packed({stored.slice(j, n, i, k)});
          ASSERT_TRUE(packed.finite);
          ASSERT_EQ(packed.matrix.dtype, DType::kInt8);
          for (int input = 0; input < k; ++input) {
            const auto got = weights_of(packed.matrix, input);
            for (int output = 0; output < n; ++output) {
              ASSERT_EQ(got[place(output)], stored.value(j + output, i + input))
                  << j << "+" << output << ", " << i << "+" << input;
            }
          }
        }
      }
    }
  }
}

TEST(StoredIntegers, WithZeroPointsBecomeTheSameNumbersInFp32) {
  for (const Words words : kWords) {
    const WithZeros stored(words, 40, 256, 128, 0, 13);
    WeightPiece turned = stored.slice(3, 20, 10, 200);
    std::swap(turned.n, turned.k);
    std::swap(turned.n_stride, turned.k_stride);
    const Packed transposed({turned});
    ASSERT_EQ(transposed.matrix.dtype, DType::kF32);
    for (int i = 0; i < 20; ++i) {
      const auto got = weights_of(transposed.matrix, i);
      for (int j = 0; j < 200; ++j) ASSERT_EQ(got[place(j)], stored.value(3 + i, 10 + j));
    }
  }
}

// A lone output's last word may be cut short where outputs are rows.
TEST(StoredIntegers, OfRowsThatDoNotFillTheirWordsAreReadAsWell) {
  for (const DType dtype : kIntegers) {
    const Stored stored(Order::kOutputs, dtype, 7, 133, 128, 3);
    const Packed packed({stored.slice(0, 7, 0, 133)});
    for (const int input : {0, 127, 128, 132}) {
      const auto got = weights_of(packed.matrix, input);
      for (int j = 0; j < 7; ++j) {
        EXPECT_EQ(got[static_cast<std::size_t>(j)], stored.value(j, input));
      }
    }
  }
}

TEST(StoredIntegers, BecomeTheSameNumbersInFp32WhereProductsCannotTakeThem) {
  for (const DType dtype : kIntegers) {
    for (const Order order : kOrders) {
      const Stored stored(order, dtype, 40, 256, 128, 4);
      WeightPiece turned = stored.slice(3, 20, 10, 200);
      std::swap(turned.n, turned.k);
      std::swap(turned.n_stride, turned.k_stride);
      const Packed transposed({turned});
      ASSERT_EQ(transposed.matrix.dtype, DType::kF32);
      for (int i = 0; i < 20; ++i) {
        const auto got = weights_of(transposed.matrix, i);
        for (int j = 0; j < 200; ++j) {
          ASSERT_EQ(got[static_cast<std::size_t>(j)], stored.value(3 + i, 10 + j));
        }
      }
      WeightPiece plain = stored.slice(0, 40, 0, 256);
      plain.round_to.reset();
      EXPECT_EQ(packed_dtype(std::span(&plain, 1)), DType::kF32);
      EXPECT_EQ(Packed({plain}).matrix.stored_fp8, false);
      const Stored of_64(order, dtype, 40, 256, 64, 5);
      const Packed other({of_64.slice(0, 40, 0, 256)});
      EXPECT_EQ(other.matrix.dtype, DType::kF32) << "a scale for 64";
      EXPECT_EQ(weights_of(other.matrix, 70)[39], of_64.value(39, 70));
    }
  }
}

TEST(StoredIntegers, StandBesideWeightsThatAreRoundedToTheSame) {
  const Stored stored(Order::kInputs, DType::kInt4, 32, 256, 128, 6);
  const std::vector<float> ones(std::size_t{32} * 256, 0.5F);
  const WeightPiece rounded{.data = reinterpret_cast<const std::byte*>(ones.data()),
                            .dtype = DType::kF32,
                            .n_stride = 256,
                            .n = 32,
                            .k = 256,
                            .round_to = DType::kInt4};
  const Packed both({stored.slice(0, 32, 0, 256), rounded});
  ASSERT_EQ(both.matrix.dtype, DType::kInt4);
  const auto got = weights_of(both.matrix, 200);
  EXPECT_EQ(got[31], stored.value(31, 200));
  EXPECT_EQ(got[32], 0.5F);
  WeightPiece as_it_is = rounded;
  as_it_is.round_to.reset();
  EXPECT_EQ(Packed({stored.slice(0, 32, 0, 256), as_it_is}).matrix.dtype, DType::kF32);
  const Stored eight(Order::kInputs, DType::kInt8, 32, 256, 128, 7);
  EXPECT_EQ(Packed({stored.slice(0, 32, 0, 256), eight.slice(0, 32, 0, 256)}).matrix.dtype,
            DType::kF32);
}

TEST(StoredIntegers, AScaleThatIsNotFiniteIsSeenInItsPanel) {
  for (const Order order : kOrders) {
    for (const bool kept : {true, false}) {
      Stored stored(order, DType::kInt4, 130, 256, 128, 8);
      WeightPiece piece = stored.slice(0, 130, 0, 256);
      if (!kept) piece.round_to.reset();
      const Packed packed({piece});
      EXPECT_TRUE(packed.finite);
      // Of output 129, block 1.
      stored.scale_bits[order == Order::kOutputs ? 129 * 2 + 1 : 130 + 129] = 0x7f80;
      EXPECT_TRUE(pack_panels(std::span(&piece, 1), packed.matrix, 0, 2));
      EXPECT_FALSE(pack_panels(std::span(&piece, 1), packed.matrix, 2, 3));
    }
  }
}

TEST(StoredIntegers, ScalesInFp16AreReadExactly) {
  Stored stored(Order::kInputs, DType::kInt8, 32, 128, 128, 9);
  WeightPiece piece = stored.slice(0, 32, 0, 128);
  piece.scales.dtype = DType::kF16;
  for (auto& bits : stored.scale_bits) bits = 0x1a37;  // 2^-9 * (1 + 0x237 / 1024)
  const Packed packed({piece});
  const float scale = (1.0F + 567.0F / 1024) / 512;
  EXPECT_EQ(weights_of(packed.matrix, 5)[31], static_cast<float>(stored.number(31, 5)) * scale);
}

// Every byte of a slice's words, and none before or after them.
TEST(StoredIntegers, SayWhichBytesTheyStandIn) {
  for (const DType dtype : kIntegers) {
    const int per_word = dtype == DType::kInt4 ? 8 : 4;
    const Stored by_output(Order::kOutputs, dtype, 96, 328, 128, 10);
    const auto rows = stored_bytes(by_output.slice(5, 70, 77, 200), 3, 9);
    EXPECT_EQ(rows.runs, 6);
    EXPECT_EQ(rows.stride, 328 / per_word * 4);
    EXPECT_EQ(rows.width, (276 / per_word - 77 / per_word + 1) * 4);
    EXPECT_EQ(rows.begin, reinterpret_cast<const std::byte*>(by_output.words.data()) +
                              8 * rows.stride + 77 / per_word * 4);
    const Stored by_input(Order::kInputs, dtype, 96, 328, 128, 11);
    const auto columns = stored_bytes(by_input.slice(5, 70, 77, 200), 3, 9);
    EXPECT_EQ(columns.runs, 276 / per_word - 77 / per_word + 1);
    EXPECT_EQ(columns.stride, 96 * 4);
    EXPECT_EQ(columns.width, 6 * 4);
    EXPECT_EQ(columns.begin, reinterpret_cast<const std::byte*>(by_input.words.data()) +
                                 77 / per_word * columns.stride + 8 * 4);
  }
  const WithZeros of_outputs(Words::kOutputs, 96, 328, 128, 0, 14);
  const auto rows = stored_bytes(of_outputs.slice(5, 70, 77, 200), 3, 9);
  EXPECT_EQ(rows.runs, 200);
  EXPECT_EQ(rows.stride, 96 / 8 * 4);
  EXPECT_EQ(rows.width, 4) << "outputs 8 to 13";
  EXPECT_EQ(rows.begin,
            reinterpret_cast<const std::byte*>(of_outputs.words.data()) + 77 * rows.stride + 4);
}

}  // namespace
}  // namespace dsm::kernels
