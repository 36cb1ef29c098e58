#include "kernels/cpu/pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/integers.h"
#include "kernels/cpu/stored_integers.h"

namespace dsm::kernels {
namespace {

// Inputs (k) that are packed at a time: a panel's part of them stays in the first-level cache.
// Even, so that pairs of BF16 are not cut.
constexpr int kRun = 256;

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

float from_bf16(std::uint16_t h) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16);
}

float from_f16(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16;
  const std::uint32_t exponent = h >> 10 & 31U;
  const std::uint32_t fraction = h & 0x3ffU;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24F;
  return sign != 0 ? -tiny : tiny;
}

constexpr std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    const unsigned exponent = bits >> 3 & 15U;
    const unsigned fraction = bits & 7U;
    float value = 0;
    if ((bits & 0x7fU) == 0x7fU) {
      value = std::numeric_limits<float>::quiet_NaN();
    } else if (exponent == 0) {
      value = static_cast<float>(fraction) * 0x1p-9F;
    } else {
      value = std::bit_cast<float>((exponent + 120) << 23 | fraction << 20);
    }
    values[bits] = bits >= 128 ? -value : value;
  }
  return values;
}
constexpr std::array<float, 256> kE4M3 = e4m3_values();

float scale_at(const BlockScales& scales, std::int64_t row, std::int64_t column) {
  const std::int64_t across = (scales.columns + scales.block_columns - 1) / scales.block_columns;
  const std::int64_t at = row / scales.block_rows * across + column / scales.block_columns;
  switch (scales.dtype) {
    case DType::kF16:
      return from_f16(load<std::uint16_t>(scales.data + at * 2));
    case DType::kBF16:
      return from_bf16(load<std::uint16_t>(scales.data + at * 2));
    case DType::kF8E8M0:
      return from_e8m0(std::to_integer<std::uint8_t>(scales.data[at]));
    default:
      return load<float>(scales.data + at * 4);
  }
}

// Inputs of a block before the first one of the piece; -1 when products have no such blocks.
int scale_phase(const WeightPiece& piece) {
  const BlockScales& s = piece.scales;
  if (s.block_rows != kScaleBlock || s.block_columns != kScaleBlock) return -1;
  const std::int64_t first =
      piece.k_stride == 1 ? piece.origin % s.columns : piece.origin / s.columns;
  return static_cast<int>(first % kScaleBlock);
}

// Times 2^120 a scale must still be a number, with its sign and all its bits.
bool scales_fit(const WeightPiece& piece) {
  const BlockScales& s = piece.scales;
  const std::int64_t last = piece.origin + (piece.n - 1) * piece.n_stride +
                            static_cast<std::int64_t>(piece.k - 1) * piece.k_stride;
  for (std::int64_t row = piece.origin / s.columns / s.block_rows;
       row <= last / s.columns / s.block_rows; ++row) {
    for (std::int64_t column = piece.origin % s.columns / s.block_columns;
         column <= last % s.columns / s.block_columns; ++column) {
      const float scale = scale_at(s, row * s.block_rows, column * s.block_columns);
      if (!(std::abs(scale) < 0x1p7F)) return false;
    }
  }
  return true;
}

bool all_fp8(std::span<const WeightPiece> pieces) {
  int phase = -1;
  for (const auto& piece : pieces) {
    if (piece.data == nullptr) continue;
    if (piece.dtype != DType::kF8E4M3 || piece.n < 1 || piece.k < 1) return false;
    const int own = scale_phase(piece);
    if (own < 0 || (phase >= 0 && own != phase) || !scales_fit(piece)) return false;
    phase = own;
  }
  return phase >= 0;
}

// The first input of a piece that is kept in integers, in its tensor.
std::int64_t first_input(const WeightPiece& piece) {
  return piece.k_stride == 1 ? piece.origin % piece.n_stride : piece.origin / piece.k_stride;
}
// Inputs of the first block of a piece that is rounded that are before its own.
int rounding_phase(const WeightPiece& piece) {
  return static_cast<int>(first_input(piece) % kScaleBlock);
}

// Inputs that a piece's tensor has, as far as they are needed: where inputs run along its rows,
// whose number is not known, up to the piece's last one.
std::int64_t inputs_of_tensor(const WeightPiece& piece) {
  return piece.k_stride == 1 ? piece.n_stride : first_input(piece) + piece.k;
}

// Whether a piece can be kept in the integers that it is to be rounded to.
bool to_integers(const WeightPiece& piece) {
  if (!piece.round_to || piece.n < 1 || piece.k < 1) return false;
  return piece.dtype == *piece.round_to ? stored_by_blocks(piece) : piece.k_stride == 1;
}

// The integers that all pieces are to be rounded to.
std::optional<DType> common_rounding(std::span<const WeightPiece> pieces) {
  const WeightPiece* first = nullptr;
  for (const auto& piece : pieces) {
    if (piece.data == nullptr) continue;
    if (!to_integers(piece)) return {};
    if (first == nullptr) first = &piece;
    if (piece.round_to != first->round_to || rounding_phase(piece) != rounding_phase(*first)) {
      return {};
    }
  }
  return first != nullptr ? first->round_to : std::nullopt;
}

// Inputs from i on that have the scale of element (j, i), and that scale.
struct ScaleRun {
  std::int64_t count;
  float scale;
};
ScaleRun scale_run(const WeightPiece& piece, std::int64_t j, std::int64_t i) {
  const BlockScales& s = piece.scales;
  const std::int64_t at = piece.origin + j * piece.n_stride + i * piece.k_stride;
  const std::int64_t row = at / s.columns;
  const std::int64_t column = at % s.columns;
  const std::int64_t left = piece.k_stride == 1 ? s.block_columns - column % s.block_columns
                                                : s.block_rows - row % s.block_rows;
  return {left, scale_at(s, row, column)};
}

const std::byte* element(const WeightPiece& piece, std::int64_t j, std::int64_t i) {
  return piece.data + (piece.origin + j * piece.n_stride + i * piece.k_stride) *
                          static_cast<std::int64_t>(bytes_of(piece.dtype));
}

// Inputs [begin, begin + count) of column j as FP32.
void read_column(const WeightPiece& piece, std::int64_t j, std::int64_t begin, std::int64_t count,
                 float* out) {
  const std::byte* at = is_integer(piece.dtype) ? nullptr : element(piece, j, begin);
  const auto step = piece.k_stride * static_cast<std::int64_t>(bytes_of(piece.dtype));
  switch (piece.dtype) {
    case DType::kF32:
      for (std::int64_t i = 0; i < count; ++i) out[i] = load<float>(at + i * step);
      return;
    case DType::kF16:
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = from_f16(load<std::uint16_t>(at + i * step));
      return;
    case DType::kBF16:
      for (std::int64_t i = 0; i < count; ++i)
        out[i] = from_bf16(load<std::uint16_t>(at + i * step));
      return;
    case DType::kF8E4M3:
      for (std::int64_t i = 0; i < count;) {
        const ScaleRun run = scale_run(piece, j, begin + i);
        const std::int64_t end = std::min(count, i + run.count);
        for (; i < end; ++i) {
          out[i] = kE4M3[std::to_integer<std::uint8_t>(at[i * step])] * run.scale;
        }
      }
      return;
    case DType::kInt8:
    case DType::kInt4: {
      const StoredIntegers integers(piece, j);
      for (std::int64_t i = 0; i < count;) {
        const ScaleRun run = scale_run(piece, j, begin + i);
        const std::int64_t end = std::min(count, i + run.count);
        const int zero = integers.zero(begin + i);
        for (; i < end; ++i) {
          out[i] = static_cast<float>(integers.at(begin + i) - zero) * run.scale;
        }
      }
      return;
    }
    case DType::kF8E8M0:
      break;  // never a weight in a checkpoint
  }
}

// The column of a piece that stands in one lane of a panel; no piece: zeros.
struct Lane {
  const WeightPiece* piece = nullptr;
  std::int64_t column = 0;
};

std::array<Lane, kPanel> lanes_of(std::span<const WeightPiece> pieces, int panel) {
  std::array<Lane, kPanel> lanes;
  std::int64_t first = std::int64_t{panel} * kPanel;  // column of the matrix in the next free lane
  std::int64_t begin = 0;
  std::size_t lane = 0;
  for (const auto& piece : pieces) {
    const std::int64_t end = begin + piece.n;
    for (; first < end && lane < kPanel; ++first, ++lane) {
      if (piece.data != nullptr) lanes[lane] = {&piece, first - begin};
    }
    begin = end;
    if (lane == kPanel) break;
  }
  return lanes;
}

// `to` holds the panel's pairs from input `begin` on.
void pack_bf16(const std::array<Lane, kPanel>& lanes, int begin, int count, std::uint16_t* to) {
  std::memset(to, 0, static_cast<std::size_t>(round_up(count, 2)) * kPanel * sizeof *to);
  for (std::size_t lane = 0; lane < kPanel; ++lane) {
    if (lanes[lane].piece == nullptr) continue;
    const WeightPiece& piece = *lanes[lane].piece;
    const std::byte* from = element(piece, lanes[lane].column, begin);
    int i = 0;
    if (piece.k_stride == 1) {
      for (; i + 1 < count; i += 2) std::memcpy(to + i * kPanel + lane * 2, from + i * 2, 4);
    }
    for (; i < count; ++i) {
      to[static_cast<std::size_t>(i / 2) * kPanel * 2 + lane * 2 +
         static_cast<std::size_t>(i % 2)] = load<std::uint16_t>(from + i * piece.k_stride * 2);
    }
  }
}

// `scales` are the panel's. False: a weight is not a number.
bool pack_e4m3(const std::array<Lane, kPanel>& lanes, const PackedMatrix& w, std::uint8_t* to,
               float* scales) {
  bool numbers = true;
  for (std::size_t lane = 0; lane < kPanel; ++lane) {
    if (lanes[lane].piece == nullptr) {
      for (int i = 0; i < w.k; ++i) to[static_cast<std::size_t>(i) * kPanel + lane] = 0;
      for (int b = 0; b < scale_blocks(w); ++b) {
        scales[static_cast<std::size_t>(b) * kPanel + lane] = 0;
      }
      continue;
    }
    const auto& [piece, column] = lanes[lane];
    const std::byte* from = element(*piece, column, 0);
    for (int i = 0; i < w.k; ++i) {
      const auto bits = std::to_integer<std::uint8_t>(from[i * piece->k_stride]);
      numbers = numbers && (bits & 0x7fU) != 0x7fU;
      to[static_cast<std::size_t>(i) * kPanel + lane] = bits;
    }
    for (int b = 0; b < scale_blocks(w); ++b) {
      const int first = std::max(0, b * kScaleBlock - w.scale_phase);
      scales[static_cast<std::size_t>(b) * kPanel + lane] =
          scale_run(*piece, column, first).scale * 0x1p120F;
    }
  }
  return numbers;
}

// Inputs [first, first + count) of a column, of which the piece has a part, as integers: those of
// its tensor, or what they are rounded to. Their scale, which may be not finite.
float column_integers(const WeightPiece& piece, DType dtype, std::int64_t j, int first, int count,
                      int* out) {
  if (piece.dtype == dtype) {
    const StoredIntegers integers(piece, j);
    const int begin = std::max(first, 0);
    const int zero = integers.zero(begin);
    for (int i = begin; i < std::min(first + count, piece.k); ++i) {
      out[i - first] = integers.at(i) - zero;
    }
    return scale_run(piece, j, begin).scale;
  }
  float values[kScaleBlock];
  read_column(piece, j, first, count, values);
  const float scale = integer_scale({values, static_cast<std::size_t>(count)}, dtype);
  if (!std::isfinite(scale)) return scale;
  for (int i = 0; i < count; ++i) out[i] = nearest_integer(values[i], scale, dtype);
  return scale;
}

// Block b of the column in one lane, of which the piece may have only a part. False: a weight is
// not finite.
bool pack_integer_block(const Lane& lane, const PackedMatrix& w, int b, std::uint32_t* to,
                        float* scale) {
  const WeightPiece& piece = *lane.piece;
  const int first = b * kScaleBlock - w.scale_phase;  // input of the piece; before it if negative
  const std::int64_t inputs_left = inputs_of_tensor(piece) - first_input(piece) - first;
  const auto count = static_cast<int>(std::min<std::int64_t>(kScaleBlock, inputs_left));
  int numbers[kScaleBlock] = {};
  *scale = column_integers(piece, w.dtype, lane.column, first, count, numbers);
  if (!std::isfinite(*scale)) return false;
  const int inputs = inputs_per_word(w.dtype);
  const int bits = 32 / inputs;
  const std::uint32_t mask = (1U << bits) - 1;
  const int offset = w.dtype == DType::kInt4 ? 8 : 0;
  for (int i = std::max(first, 0); i < std::min(first + count, w.k); ++i) {
    const int at = lead_of(w) + i;
    const int number = numbers[i - first] + offset;
    const int shift = place_in_word(w.dtype, at % inputs) * bits;
    to[static_cast<std::size_t>(at / inputs) * kPanel] |=
        (static_cast<std::uint32_t>(number) & mask) << shift;
  }
  return true;
}

// `to` and `scales` are the panel's. False: a weight is not finite.
bool pack_integers(const std::array<Lane, kPanel>& lanes, const PackedMatrix& w, std::uint32_t* to,
                   float* scales) {
  std::fill_n(to, static_cast<std::size_t>(words_of(w)) * kPanel, 0U);
  std::fill_n(scales, static_cast<std::size_t>(scale_blocks(w)) * kPanel, 0.0F);
  for (std::size_t lane = 0; lane < kPanel; ++lane) {
    if (lanes[lane].piece == nullptr) continue;
    for (int b = 0; b < scale_blocks(w); ++b) {
      float* scale = scales + static_cast<std::size_t>(b) * kPanel + lane;
      if (!pack_integer_block(lanes[lane], w, b, to + lane, scale)) return false;
    }
  }
  return true;
}

// False: a weight that was in FP8 is not a number, or one that was an integer is not finite.
bool pack_f32(const std::array<Lane, kPanel>& lanes, int begin, int count, float* to) {
  bool numbers = true;
  float values[kRun];
  for (std::size_t lane = 0; lane < kPanel; ++lane) {
    if (lanes[lane].piece == nullptr) {
      std::memset(values, 0, sizeof values);
    } else {
      const WeightPiece& piece = *lanes[lane].piece;
      read_column(piece, lanes[lane].column, begin, count, values);
      if (piece.dtype == DType::kF8E4M3) {
        for (int i = 0; i < count; ++i) numbers = numbers && !std::isnan(values[i]);
      } else if (is_integer(piece.dtype)) {
        for (int i = 0; i < count; ++i) numbers = numbers && std::isfinite(values[i]);
      }
    }
    for (int i = 0; i < count; ++i) to[static_cast<std::size_t>(i) * kPanel + lane] = values[i];
  }
  return numbers;
}

}  // namespace

float from_e4m3(std::uint8_t bits) {
  return kE4M3[bits];
}

float from_e8m0(std::uint8_t bits) {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0F, static_cast<int>(bits) - 127);
}

DType packed_dtype(std::span<const WeightPiece> pieces) {
  if (const auto integers = common_rounding(pieces)) return *integers;
  const bool bf16 = std::ranges::all_of(pieces, [](const WeightPiece& piece) {
    return piece.data == nullptr || piece.dtype == DType::kBF16;
  });
  if (bf16) return DType::kBF16;
  return all_fp8(pieces) ? DType::kF8E4M3 : DType::kF32;
}

std::size_t packed_bytes(DType dtype, int n, int k) {
  const auto columns = static_cast<std::size_t>(round_up(n, kPanel));
  if (dtype == DType::kBF16) return columns * static_cast<std::size_t>(round_up(k, 2)) * 2;
  if (dtype == DType::kF32) return columns * static_cast<std::size_t>(k) * sizeof(float);
  // With the latest phase.
  const PackedMatrix w{.dtype = dtype, .n = n, .k = k, .scale_phase = kScaleBlock - 1};
  const auto scales = static_cast<std::size_t>(scale_blocks(w)) * sizeof(float);
  return columns * (static_cast<std::size_t>(column_bytes(w)) + scales);
}

PackedMatrix packed_matrix(std::span<const WeightPiece> pieces, void* out) {
  PackedMatrix packed{.data = out, .dtype = packed_dtype(pieces), .n = 0, .k = pieces[0].k};
  for (const auto& piece : pieces) packed.n += piece.n;
  const bool integers = is_integer(packed.dtype);
  packed.stored_fp8 = !integers && std::ranges::all_of(pieces, [](const WeightPiece& piece) {
    return piece.data == nullptr || piece.dtype == DType::kF8E4M3;
  });
  if (!has_scales(packed)) return packed;
  for (const auto& piece : pieces) {
    if (piece.data != nullptr) {
      packed.scale_phase = integers ? rounding_phase(piece) : scale_phase(piece);
    }
  }
  if (out != nullptr) {
    // Behind the values, which take a multiple of 64 bytes.
    packed.scales = reinterpret_cast<const float*>(
        static_cast<const std::byte*>(out) + round_up(packed.n, kPanel) * column_bytes(packed));
  }
  return packed;
}

bool pack_panels(std::span<const WeightPiece> pieces, const PackedMatrix& into, int begin,
                 int end) {
  auto* out = static_cast<std::byte*>(const_cast<void*>(into.data));
  const auto panel_bytes = static_cast<std::size_t>(kPanel * column_bytes(into));
  bool numbers = true;
  for (int panel = begin; panel < end; ++panel) {
    const auto lanes = lanes_of(pieces, panel);
    std::byte* to = out + static_cast<std::size_t>(panel) * panel_bytes;
    if (has_scales(into)) {
      auto* scales =
          const_cast<float*>(into.scales) + std::int64_t{panel} * kPanel * scale_blocks(into);
      numbers = (is_integer(into.dtype)
                     ? pack_integers(lanes, into, reinterpret_cast<std::uint32_t*>(to), scales)
                     : pack_e4m3(lanes, into, reinterpret_cast<std::uint8_t*>(to), scales)) &&
                numbers;
      continue;
    }
    for (int i = 0; i < into.k; i += kRun) {
      const int count = std::min(kRun, into.k - i);
      if (into.dtype == DType::kBF16) {
        pack_bf16(lanes, i, count, reinterpret_cast<std::uint16_t*>(to) + i * kPanel);
      } else {
        numbers = pack_f32(lanes, i, count, reinterpret_cast<float*>(to) + i * kPanel) && numbers;
      }
    }
  }
  return numbers;
}

PackedMatrix pack(std::span<const WeightPiece> pieces, void* out) {
  const PackedMatrix packed = packed_matrix(pieces, out);
  (void)pack_panels(pieces, packed, 0, panels_of(packed));
  return packed;
}

void to_float(const std::byte* data, DType dtype, std::int64_t count, float* out) {
  read_column({.data = data, .dtype = dtype, .n_stride = count, .n = 1, .k = 0}, 0, 0, count, out);
}

}  // namespace dsm::kernels
