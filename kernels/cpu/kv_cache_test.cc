// The KV cache in its types: what is written is what rounding says, attention over it is attention
// over these values in FP32, bit by bit, and every table has the same bits.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/ops.h"
#include "kernels/random_floats.h"

namespace dsm::kernels {
namespace {

std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

// Memory of a cache of kBlocks blocks, garbage before it is written.
struct Cache {
  static constexpr int kBlocks = 3;
  std::vector<std::byte> keys, values;
  std::vector<float> key_scales, value_scales;
  KvLayer kv;

  explicit Cache(const KvLayer& shape) : kv(shape) {
    const std::int64_t heads = std::int64_t{kBlocks} * kv.heads;
    keys.assign(size(heads * key_block_bytes(kv)), std::byte{0x7f});
    values.assign(size(heads * value_block_bytes(kv)), std::byte{0x7f});
    key_scales.assign(size(heads * key_scales_of(kv) * kKvBlock), std::nanf(""));
    value_scales.assign(size(heads * value_scales_of(kv) * kKvBlock), std::nanf(""));
    kv.keys = keys.data();
    kv.values = values.data();
    kv.key_scales = key_scales.data();
    kv.value_scales = value_scales.data();
  }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
};

// What is written into caches: of latent attention, or of 2 KV heads.
struct Input {
  static constexpr int kTokens = 150;
  bool latent;
  int heads;  // query heads of a KV head
  KvLayer shape;
  std::vector<std::int32_t> table = {2, 0, 1};
  std::vector<TokenPlace> places;
  std::vector<float> rows, norm, cos, sin, query;
  RopeTable rope;

  explicit Input(bool is_latent) : latent(is_latent), heads(is_latent ? 5 : 3) {
    // Neither is a multiple of the 128 that have a scale.
    shape = latent ? KvLayer{.heads = 1, .key_dim = 176, .value_dim = 144}
                   : KvLayer{.heads = 2, .key_dim = 160, .value_dim = 160};
    const int pairs = latent ? 16 : 80;
    rows = random_floats(size(kTokens) * 640, 1);
    norm = random_floats(144, 2);
    cos = random_floats(size(kTokens) * size(pairs), 3);
    sin = random_floats(size(kTokens) * size(pairs), 4);
    query = random_floats(size(kTokens) * size(shape.heads * heads * shape.key_dim), 5);
    rope = {cos.data(), sin.data(), pairs, !latent};
    for (int t = 0; t < kTokens; ++t) places.push_back({t, table[size(t / kKvBlock)]});
  }

  KvLayer typed(DType dtype) const {
    KvLayer kv = shape;
    kv.dtype = dtype;
    if (latent && dtype == DType::kF8E4M3) kv.plain_dim = 32;
    return kv;
  }

  void write(const Ops& ops, const KvLayer& kv) const {
    if (latent) {
      ops.kv_write({rows.data(), 640, norm.data(), places.data(), kv, rope, kTokens, 1e-6F}, 0,
                   kTokens);
    } else {
      ops.kv_write_heads({rows.data(), rows.data() + 320, 640, places.data(), kv, rope, kTokens}, 0,
                         kTokens);
    }
  }

  std::vector<float> attend(const Ops& ops, const KvLayer& kv, int item_rows) const {
    std::vector<AttentionItem> items;
    for (int h = 0; h < kv.heads; ++h) {
      for (int at = 0; at < kTokens * heads; at += item_rows) {
        items.push_back({at, std::min(kTokens * heads, at + item_rows), table.data(), h});
      }
    }
    std::vector<float> out(size(kTokens) * size(kv.heads * heads * kv.value_dim));
    const AttentionParams p{
        query.data(), out.data(), places.data(), items.data(), static_cast<int>(items.size()),
        heads,        kv,         0.1F};
    for (int i = 0; i < p.item_count; ++i) ops.attention(p, i);
    return out;
  }
};

float from_e4m3(std::byte byte) {
  const int bits = std::to_integer<int>(byte);
  const int exponent = bits >> 3 & 15;
  const int fraction = bits & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), -9)
                              : std::ldexp(1.0F + static_cast<float>(fraction) / 8, exponent - 7);
  return bits >> 7 != 0 ? -magnitude : magnitude;
}
float from_bf16(const std::byte* at) {
  std::uint16_t half = 0;
  std::memcpy(&half, at, 2);
  return std::bit_cast<float>(std::uint32_t{half} << 16);
}

// Read by what params.h says of the layout.
float key_of(const Cache& c, std::int64_t head_block, int i, int slot) {
  const KvLayer& kv = c.kv;
  const std::byte* keys = c.keys.data() + head_block * key_block_bytes(kv);
  if (kv.dtype == DType::kF32) {
    float x = 0;
    std::memcpy(&x, keys + (i * kKvBlock + slot) * 4, 4);
    return x;
  }
  const int scaled = kv.dtype == DType::kBF16 ? 0 : kv.key_dim - kv.plain_dim;
  if (i >= scaled) {
    const int j = i - scaled;
    return from_bf16(keys + scaled * kKvBlock + ((j / 2 * kKvBlock + slot) * 2 + j % 2) * 2);
  }
  const std::int64_t scale = (head_block * ((scaled + 127) / 128) + i / 128) * kKvBlock + slot;
  return from_e4m3(keys[i * kKvBlock + slot]) * (c.key_scales[size(scale)] * 0x1p-120F);
}
float value_of(const Cache& c, std::int64_t head_block, int i, int slot) {
  const KvLayer& kv = c.kv;
  const std::byte* values = c.values.data() + head_block * value_block_bytes(kv);
  if (kv.dtype == DType::kF32) {
    float x = 0;
    std::memcpy(&x, values + (slot * kv.value_dim + i) * 4, 4);
    return x;
  }
  if (kv.dtype == DType::kBF16) {
    return from_bf16(values + ((slot / 2 * kv.value_dim + i) * 2 + slot % 2) * 2);
  }
  const std::int64_t scale =
      (head_block * ((kv.value_dim + 127) / 128) + i / 128) * kKvBlock + slot;
  return from_e4m3(values[slot * kv.value_dim + i]) * (c.value_scales[size(scale)] * 0x1p-120F);
}

// Calls visit(head block, slot) for every position that was written.
template <class Visit>
void each_place(const Input& input, const Visit& visit) {
  for (const TokenPlace& place : input.places) {
    for (int h = 0; h < input.shape.heads; ++h) {
      visit(std::int64_t{place.block} * input.shape.heads + h, place.position % kKvBlock);
    }
  }
}

// Within half of the last of BF16's 8 bits, or of FP8's 4 and half of its smallest step.
void expect_rounded(float got, float exact, DType dtype, float largest) {
  const float bound = dtype == DType::kBF16
                          ? std::abs(exact) * 0x1p-8F
                          : std::max(std::abs(exact) * 0x1p-4F, largest / 224 * 0x1p-10F);
  ASSERT_NEAR(got, exact, bound);
}

class KvCache : public OnEveryTable {};

TEST_P(KvCache, KeysAndValuesAreRounded) {
  for (const bool latent : {true, false}) {
    const Input input(latent);
    Cache exact(input.typed(DType::kF32));
    input.write(*GetParam(), exact.kv);
    for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
      Cache cache(input.typed(dtype));
      input.write(*GetParam(), cache.kv);
      each_place(input, [&](std::int64_t block, int slot) {
        for (int i = 0; i < cache.kv.key_dim; ++i) {
          const bool plain = i >= cache.kv.key_dim - cache.kv.plain_dim;
          expect_rounded(key_of(cache, block, i, slot), key_of(exact, block, i, slot),
                         plain ? DType::kBF16 : dtype, 20.0F);
        }
        for (int i = 0; i < cache.kv.value_dim; ++i) {
          expect_rounded(value_of(cache, block, i, slot), value_of(exact, block, i, slot), dtype,
                         20.0F);
        }
      });
    }
  }
}

TEST_P(KvCache, AttentionIsThatOverTheRoundedValuesInFp32) {
  for (const bool latent : {true, false}) {
    const Input input(latent);
    for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
      Cache cache(input.typed(dtype));
      input.write(*GetParam(), cache.kv);
      Cache plain(input.typed(DType::kF32));
      each_place(input, [&](std::int64_t block, int slot) {
        auto* keys = reinterpret_cast<float*>(plain.keys.data()) +
                     block * kKvBlock * plain.kv.key_dim + slot;
        for (int i = 0; i < plain.kv.key_dim; ++i) {
          keys[i * kKvBlock] = key_of(cache, block, i, slot);
        }
        auto* values = reinterpret_cast<float*>(plain.values.data()) +
                       (block * kKvBlock + slot) * plain.kv.value_dim;
        for (int i = 0; i < plain.kv.value_dim; ++i) {
          values[i] = value_of(cache, block, i, slot);
        }
      });
      const auto wanted = input.attend(*GetParam(), plain.kv, kAttentionRows);
      EXPECT_EQ(input.attend(*GetParam(), cache.kv, kAttentionRows), wanted);
      EXPECT_EQ(input.attend(*GetParam(), cache.kv, 7), wanted);
    }
  }
}

TEST_P(KvCache, EveryTableHasTheBitsOfThePlainOne) {
  const Ops& generic = *available_ops()[0];
  for (const bool latent : {true, false}) {
    const Input input(latent);
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
      Cache wanted(input.typed(dtype));
      Cache got(input.typed(dtype));
      input.write(generic, wanted.kv);
      input.write(*GetParam(), got.kv);
      EXPECT_EQ(got.keys, wanted.keys);
      EXPECT_EQ(got.values, wanted.values);
      EXPECT_EQ(input.attend(*GetParam(), got.kv, 9), input.attend(generic, wanted.kv, 9));
    }
  }
}

TEST_P(KvCache, ALatentIsReadBackInFp32) {
  const Input input(true);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    Cache cache(input.typed(dtype));
    input.write(*GetParam(), cache.kv);
    std::vector<float> latents(size(kKvBlock) * 144);
    std::vector<float> rotated(32 * size(kKvBlock));
    const int rows = Input::kTokens % kKvBlock;
    const std::int32_t block = 1;
    GetParam()->latent_read({cache.kv, &block, rows, latents.data(), rotated.data()}, 0, rows);
    for (int slot = 0; slot < rows; ++slot) {
      for (int i = 0; i < 144; ++i) {
        ASSERT_EQ(latents[size(slot * 144 + i)], value_of(cache, 1, i, slot));
      }
      for (int i = 0; i < 32; ++i) {
        ASSERT_EQ(rotated[size(i * kKvBlock + slot)], key_of(cache, 1, 144 + i, slot));
      }
    }
  }
}

TEST_P(KvCache, WhatIsNoNumberStaysNone) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
      Input input(false);
      input.rows[size(20 * 640 + 320 + 7)] = bad;  // a value of head 0 of token 20
      Cache cache(input.typed(dtype));
      input.write(*GetParam(), cache.kv);
      const auto out = input.attend(*GetParam(), cache.kv, kAttentionRows);
      const auto row = [&](int token, int head) { return size((token * 2 + head) * 3 * 160); };
      EXPECT_TRUE(std::isfinite(out[row(5, 0) + 7]));
      EXPECT_FALSE(std::isfinite(out[row(20, 0) + 7]));
      EXPECT_TRUE(std::isfinite(out[row(20, 1) + 7]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, KvCache, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
