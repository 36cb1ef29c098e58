// What the loader promises at once is there after finish(), whatever waits and however many threads
// pack.
#include "worker/model/weight_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/model/checkpoint_writer.h"
#include "worker/device/cpu_backend.h"

namespace dsm::model {
namespace {

using kernels::DType;
using kernels::PackedMatrix;
using kernels::WeightPiece;
using testing::HasSubstr;

constexpr int kRows = 700;
constexpr int kColumns = 96;

// Matrices m0 .. m9 in BF16, a vector in FP32.
TestTensors some_tensors() {
  TestTensors tensors;
  std::mt19937 random(1);
  for (int i = 0; i < 10; ++i) {
    TestTensor matrix{"BF16", {kRows, kColumns}, std::string(std::size_t{kRows} * kColumns * 2, 0)};
    for (char& byte : matrix.bytes) byte = static_cast<char>(random() % 100);
    tensors["m" + std::to_string(i)] = std::move(matrix);
  }
  tensors["v"] = {"F32", {kColumns}, std::string(std::size_t{kColumns} * 4, 'v')};
  return tensors;
}

// One pass over everything, rows 100 .. 699 of each matrix.
struct Read {
  explicit Read(WeightLoader& loader) {
    for (int i = 0; i < 10; ++i) {
      const auto piece =
          loader.slice("m" + std::to_string(i), kRows, kColumns, 100, 600, 0, kColumns);
      packed.push_back(loader.pack(piece));
    }
    vector = loader.vector("v", kColumns);
    table = loader.table("m0", kRows, kColumns);
    loader.finish();
  }
  std::vector<PackedMatrix> packed;
  const float* vector;
  std::pair<const void*, DType> table;
};

class WeightLoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_.write("model.safetensors", safetensors_bytes(tensors_));
    auto checkpoint = Checkpoint::open(dir_.path());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    checkpoint_.emplace(std::move(*checkpoint));
  }

  TestDir dir_;
  TestTensors tensors_ = some_tensors();
  std::optional<Checkpoint> checkpoint_;
  std::optional<Fp8Blocks> plain_;
  std::optional<IntegerWeights> no_integers_;
};

TEST_F(WeightLoaderTest, WhatWasPromisedIsThereHoweverMuchMayWait) {
  const LoadProgress nobody = [](std::int64_t, std::int64_t) {};
  WeightLoader count(*checkpoint_, plain_, no_integers_, nullptr, 0, nobody);
  const Read dry(count);
  EXPECT_EQ(count.bytes(), 10 * 600 * kColumns * 2 + kColumns * 4 + kRows * kColumns * 2);
  for (const std::int64_t ahead :
       {std::int64_t{1}, std::int64_t{300'000}, WeightLoader::kReadAhead}) {
    for (const int threads : {1, 3}) {
      const auto backend = device::make_cpu_backend(threads);
      std::int64_t last = 0;
      int calls = 0;
      const LoadProgress progress = [&](std::int64_t loaded, std::int64_t total) {
        EXPECT_GE(loaded, last);
        EXPECT_EQ(total, count.bytes());
        last = loaded;
        ++calls;
      };
      WeightLoader loader(*checkpoint_, plain_, no_integers_, backend.get(), count.bytes(),
                          progress, ahead);
      const Read read(loader);
      ASSERT_FALSE(loader.error());
      EXPECT_EQ(last, count.bytes());
      EXPECT_GE(calls, ahead == WeightLoader::kReadAhead ? 1 : 3);
      for (int i = 0; i < 10; ++i) {
        const std::string& bytes = tensors_["m" + std::to_string(i)].bytes;
        const WeightPiece piece{
            reinterpret_cast<const std::byte*>(bytes.data()) + std::size_t{100} * kColumns * 2,
            DType::kBF16,
            kColumns,
            1,
            600,
            kColumns};
        std::vector<std::byte> wanted(kernels::packed_bytes(DType::kBF16, 600, kColumns));
        kernels::pack({&piece, 1}, wanted.data());
        const auto& got = read.packed[static_cast<std::size_t>(i)];
        EXPECT_EQ(std::memcmp(got.data, wanted.data(), wanted.size()), 0) << i;
      }
      EXPECT_EQ(std::memcmp(read.vector, tensors_["v"].bytes.data(), kColumns * 4), 0);
      EXPECT_EQ(read.table.second, DType::kBF16);
      EXPECT_EQ(std::memcmp(read.table.first, tensors_["m0"].bytes.data(),
                            std::size_t{kRows} * kColumns * 2),
                0);
    }
  }
}

TEST_F(WeightLoaderTest, TheFirstErrorSticks) {
  const auto backend = device::make_cpu_backend(1);
  int calls = 0;
  const LoadProgress progress = [&](std::int64_t, std::int64_t) { ++calls; };
  WeightLoader loader(*checkpoint_, plain_, no_integers_, backend.get(), 0, progress);
  EXPECT_EQ(loader.pack(loader.whole("absent", 3, 4)).data, nullptr);
  EXPECT_EQ(loader.vector("m1", 3), nullptr);
  EXPECT_EQ(loader.pack(loader.whole("m1", kRows, kColumns)).data, nullptr);
  loader.finish();
  ASSERT_TRUE(loader.error());
  EXPECT_THAT(loader.error()->message, HasSubstr("has no tensor absent"));
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace dsm::model
