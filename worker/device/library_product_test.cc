// Products of many rows by a library, on the emulated GPU: a stand-in for cuBLASLt does what its
// descriptions say, so layouts, transposes and padding are those that the library would get.
#include "worker/device/library_product.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/cuda/emulation/memory.h"
#include "kernels/cuda/emulation/stream.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/cpu_backend.h"
#include "worker/device/cuda_backend.h"

namespace dsm::device {
namespace {

using namespace kernels;

struct FakeLayout {
  int type = -1;
  std::uint64_t rows = 0;
  std::uint64_t columns = 0;
  std::int64_t ld = 0;
};
struct FakeProduct {
  std::int32_t transpose_a = 0;
};
int g_multiplied = 0;  // calls of multiply()
bool g_has_algorithm = true;
constexpr std::uint64_t kFakeAlgorithm = 77;

template <class T>
CublasLt::Status create(void** to) {
  *to = new T();
  return 0;
}
template <class T>
CublasLt::Status destroy(void* handle) {
  delete static_cast<T*>(handle);
  return 0;
}

// Element (row, column) of a column-major matrix.
double element(const void* data, const FakeLayout& layout, std::uint64_t row,
               std::uint64_t column) {
  const std::uint64_t at = column * static_cast<std::uint64_t>(layout.ld) + row;
  if (layout.type == CublasLt::kFloat32) return static_cast<const float*>(data)[at];
  const std::uint32_t bits = std::uint32_t{static_cast<const std::uint16_t*>(data)[at]} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

CublasLt::Status multiply(void*, void* product, const void* alpha, const void* a, void* a_layout,
                          const void* b, void* b_layout, const void* beta, const void*, void*,
                          void* d, void* d_layout, const CublasLt::Algorithm* algorithm, void*,
                          std::size_t, CUstream_st* stream) {
  const auto left = *static_cast<FakeLayout*>(a_layout);
  const auto right = *static_cast<FakeLayout*>(b_layout);
  const auto sums = *static_cast<FakeLayout*>(d_layout);
  const bool turned = static_cast<FakeProduct*>(product)->transpose_a == CublasLt::kTransposed;
  const std::uint64_t inner = turned ? left.rows : left.columns;
  if (algorithm->opaque[0] != kFakeAlgorithm || *static_cast<const float*>(alpha) != 1 ||
      *static_cast<const float*>(beta) != 0 || inner != right.rows ||
      sums.rows != (turned ? left.columns : left.rows) || sums.columns != right.columns ||
      sums.type != CublasLt::kFloat32 || left.type != right.type) {
    return 7;  // CUBLAS_STATUS_INVALID_VALUE
  }
  ++g_multiplied;
  emulation::enqueue(stream, [=] {
    const emulation::DeviceAccess access;
    for (std::uint64_t column = 0; column < sums.columns; ++column) {
      for (std::uint64_t row = 0; row < sums.rows; ++row) {
        double sum = 0;
        for (std::uint64_t i = 0; i < inner; ++i) {
          sum += (turned ? element(a, left, i, row) : element(a, left, row, i)) *
                 element(b, right, i, column);
        }
        static_cast<float*>(d)[column * static_cast<std::uint64_t>(sums.ld) + row] =
            static_cast<float>(sum);
      }
    }
  });
  return 0;
}

FoundCublasLt fake_library() {
  return CublasLt{
      .create = create<int>,
      .destroy = destroy<int>,
      .product_create = [](void** to, int compute, int scale) -> CublasLt::Status {
        if (compute != CublasLt::kComputeFloat32 || scale != CublasLt::kFloat32) return 7;
        return create<FakeProduct>(to);
      },
      .product_destroy = destroy<FakeProduct>,
      .product_set =
          [](void* product, int attribute, const void* value, std::size_t bytes) {
            if (attribute != CublasLt::kTransposeA || bytes != sizeof(std::int32_t)) return 7;
            std::memcpy(&static_cast<FakeProduct*>(product)->transpose_a, value, bytes);
            return 0;
          },
      .layout_create =
          [](void** to, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t ld) {
            if (ld < static_cast<std::int64_t>(rows)) return 7;
            *to = new FakeLayout{type, rows, columns, ld};
            return 0;
          },
      .layout_destroy = destroy<FakeLayout>,
      .preference_create = create<int>,
      .preference_destroy = destroy<int>,
      .preference_set = [](void*, int, const void*, std::size_t) { return 0; },
      .heuristic =
          [](void*, void*, void*, void*, void*, void*, void*, int, CublasLt::Found* found,
             int* count) {
            *count = g_has_algorithm ? 1 : 0;
            *found = {};
            found->algorithm.opaque[0] = kFakeAlgorithm;
            return 0;
          },
      .multiply = multiply};
}

std::size_t size(int rows, int columns) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

PackedMatrix load(const Side& side, const WeightPiece& piece) {
  const PackedMatrix packed = side.backend->reserve({&piece, 1});
  EXPECT_TRUE(side.backend->pack_panels({&piece, 1}, packed, 0, panels_of(packed)));
  return packed;
}

class LibraryProductTest : public testing::Test {
 protected:
  LibraryProductTest() {
    g_multiplied = 0;
    g_has_algorithm = true;
  }

  // Inputs from `first` on, in BF16 or in FP8 blocks.
  WeightPiece piece(DType dtype, int n, int k, int first) {
    std::mt19937 random(5);
    const std::int64_t columns = first + k;
    bytes_.resize(size(n, first + k) * bytes_of(dtype));
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      // FP8 up to 0.47; BF16 between 0.03 and 0.12, of either sign.
      bytes_[i] = dtype == DType::kF8E4M3 ? std::byte(random() & 0xb7U)
                  : i % 2 == 0            ? std::byte(random())
                                          : std::byte(0x3dU | (random() & 0x80U));
    }
    scales_ = random_floats(static_cast<std::size_t>((n + 127) / 128 * ((columns + 127) / 128)), 6);
    return {bytes_.data(),
            dtype,
            columns,
            1,
            n,
            k,
            first,
            {reinterpret_cast<const std::byte*>(scales_.data()), DType::kF32, 128, 128, columns}};
  }

  static void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, int k) {
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      // Eight bits of an activation, and of a scaled FP8 weight, take part.
      ASSERT_NEAR(got[i], wanted[i], 6e-3 * std::sqrt(k)) << i;
    }
  }

  std::vector<std::byte> bytes_;
  std::vector<float> scales_;
  FoundCublasLt library_ = fake_library();
  Side cpu_{make_cpu_backend(1)};
  Side device_{make_cuda_backend(1, false, 0, &library_, AllReduce::kAuto, false,
                                 {.many_rows = ManyRows::kLibrary})};
  const int rows_ = cuda::library_rows(9, DType::kBF16) + 3;
  const int fp8_rows_ = cuda::library_rows(9, DType::kF8E4M3) + 3;
};

TEST_F(LibraryProductTest, ALinearOfManyRowsIsNear) {
  constexpr std::array<std::array<int, 3>, 3> kShapes = {
      {{64, 64, 0}, {100, 131, 0}, {40, 200, 77}}};
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    for (const auto& shape : kShapes) {
      const int n = shape[0];
      const int k = shape[1];
      const WeightPiece weight = piece(dtype, n, k, shape[2]);
      const auto x = random_floats(size(fp8_rows_, k + 1), 7);
      const auto run = [&](const Side& side) {
        const PackedMatrix w = load(side, weight);
        EXPECT_EQ(w.dtype, dtype);
        auto* y = side.put(random_floats(size(fp8_rows_, n), 8));
        side.backend->linear({.x = side.put(x),
                              .ldx = k + 1,
                              .w = &w,
                              .bias = side.put(random_floats(static_cast<std::size_t>(n), 9)),
                              .y = y,
                              .ldy = n,
                              .rows = fp8_rows_,
                              .accumulate = true});
        return side.get(y, size(fp8_rows_, n));
      };
      g_multiplied = 0;
      expect_near(run(device_), run(cpu_), k);
      EXPECT_EQ(g_multiplied, 1);
    }
  }
}

// The first group has all tokens, the second every other, which are too few.
TEST_F(LibraryProductTest, OnlyTheGroupsOfManyRowsAreTheLibrarys) {
  constexpr int kInputs = 96;
  const WeightPiece weight = piece(DType::kBF16, 128, kInputs, 0);
  std::vector<std::int32_t> token(size(rows_, 1));
  std::iota(token.begin(), token.end(), 0);
  for (int t = 0; t < rows_; t += 2) token.push_back(t);
  const auto slots = static_cast<int>(token.size());
  const Group groups[] = {{0, rows_}, {rows_, slots}};
  const auto weights = random_floats(token.size(), 10);
  const auto run = [&](const Side& side) {
    const PackedMatrix w[] = {load(side, weight), load(side, weight)};
    auto* h = allocate<float>(*side.backend, token.size() * 64);
    side.backend->gate_up({side.put(random_floats(size(rows_, kInputs), 11)), kInputs, token.data(),
                           weights.data(), groups, w, 2, h, 64});
    return side.get(h, token.size() * 64);
  };
  expect_near(run(device_), run(cpu_), kInputs);
  EXPECT_EQ(g_multiplied, 1);
}

TEST_F(LibraryProductTest, WhatTheLibraryDoesNotTakeIsOurs) {
  const WeightPiece weight = piece(DType::kBF16, 64, 64, 0);
  const auto run = [&](const Side& side, int rows) {
    const PackedMatrix w = load(side, weight);
    auto* y = allocate<float>(*side.backend, size(rows, 64));
    const auto x = random_floats(size(rows, 64), 12);
    side.backend->linear({.x = side.put(x), .ldx = 64, .w = &w, .y = y, .ldy = 64, .rows = rows});
    return side.get(y, size(rows, 64));
  };
  expect_near(run(device_, 20), run(cpu_, 20), 64);
  g_has_algorithm = false;
  expect_near(run(device_, rows_), run(cpu_, rows_), 64);
  EXPECT_EQ(g_multiplied, 0);
}

// Its launches are its own, so a graph of ours shall not hold them.
TEST_F(LibraryProductTest, StepsOfManyRowsAreNotRecorded) {
  const WeightPiece weight = piece(DType::kBF16, 64, 64, 0);
  const PackedMatrix w = load(device_, weight);
  const float* x = device_.put(random_floats(size(rows_, 64), 13));
  auto* y = allocate<float>(*device_.backend, size(rows_, 64));
  int called = 0;
  const auto repeat = [&](int rows) {
    for (int i = 0; i < 4; ++i) {
      device_.backend->stage({}, {});
      device_.backend->repeat({.tokens = rows, .positions = 1024}, [&] {
        ++called;
        device_.backend->linear({.x = x, .ldx = 64, .w = &w, .y = y, .ldy = 64, .rows = rows});
      });
      device_.backend->wait();
    }
  };
  repeat(rows_);
  EXPECT_EQ(g_multiplied, 4);
  EXPECT_EQ(called, 4);
  repeat(20);
  EXPECT_EQ(g_multiplied, 4);
  EXPECT_EQ(called, 6) << "the first and the one that is recorded";
}

// What the kernel for many rows takes is recorded, unless other weights of the model are the
// library's.
TEST_F(LibraryProductTest, StepsOfFewerRowsAreRecordedWhereNoWeightIsTheLibrarys) {
  for (const DType other : {DType::kBF16, DType::kF8E4M3}) {
    const Side side{make_cuda_backend(1, false, 0, &library_)};
    const WeightPiece second = piece(other, 64, 64, 0);
    load(side, second);
    const WeightPiece weight = piece(DType::kBF16, 64, 64, 0);
    const PackedMatrix w = load(side, weight);
    const float* x = side.put(random_floats(size(fp8_rows_, 64), 13));
    auto* y = allocate<float>(*side.backend, size(fp8_rows_, 64));
    int called = 0;
    for (int i = 0; i < 4; ++i) {
      side.backend->stage({}, {});
      side.backend->repeat({.tokens = fp8_rows_, .positions = 1024}, [&] {
        ++called;
        side.backend->linear({.x = x, .ldx = 64, .w = &w, .y = y, .ldy = 64, .rows = fp8_rows_});
      });
      side.backend->wait();
    }
    EXPECT_EQ(called, other == DType::kBF16 ? 2 : 4);
    EXPECT_EQ(g_multiplied, 0);
  }
}

TEST_F(LibraryProductTest, TheNameSaysWhetherTheLibraryIsThere) {
  EXPECT_NE(device_.backend->name().find("long prompts by cuBLASLt"), std::string::npos);
  const FoundCublasLt missing = std::unexpected("cuBLASLt is not there: no such file");
  EXPECT_NE(make_cuda_backend(1, false, 0, &missing)->name().find("own products: cuBLASLt is not"),
            std::string::npos);
  EXPECT_EQ(make_cuda_backend(1, true, 0, nullptr)->name().find("cuBLASLt"), std::string::npos);
}

}  // namespace
}  // namespace dsm::device
