// How much of a GPU's memory is lost between the pieces of the models whose config.json's sizes are
// in sizing/models, as a loader asks for them (worker/model/weights.cc), in the chunks that a
// worker has.
#include "worker/device/arena_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "kernels/cpu/pack.h"

namespace dsm::device {
namespace {

using kernels::DType;

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kChunk = 32 * kMiB;
constexpr std::size_t kUnit = 2 * kMiB;

// Takes pieces as DeviceArena does, and looks that no two have a byte in common.
class Taken {
 public:
  explicit Taken(std::size_t chunk) : plan_(chunk) {}

  void take(std::size_t bytes) {
    auto place = plan_.take(bytes);
    if (!place) {
      chunks_.push_back(plan_.chunk_for(bytes));
      plan_.add(chunks_.back());
      place = plan_.take(bytes);
    }
    if (!place) FAIL() << "no room in a chunk that was made for it";
    ASSERT_LT(place->chunk, chunks_.size());
    ASSERT_EQ(place->offset % 256, 0U);
    auto& pieces = pieces_[place->chunk];
    const auto next = pieces.lower_bound(place->offset);
    const std::size_t end = next == pieces.end() ? chunks_[place->chunk] : next->first;
    const std::size_t begin = next == pieces.begin() ? 0 : std::prev(next)->second;
    ASSERT_LE(begin, place->offset);
    ASSERT_LE(place->offset + bytes, end);
    pieces.emplace_hint(next, place->offset, place->offset + std::max<std::size_t>(bytes, 1));
    asked_ += bytes;
  }

  std::size_t asked() const { return asked_; }
  // In units of the GPU's.
  std::size_t taken() const {
    std::size_t sum = 0;
    for (const std::size_t size : chunks_) sum += (size + kUnit - 1) / kUnit * kUnit;
    return sum;
  }
  const std::vector<std::size_t>& chunks() const { return chunks_; }

 private:
  ArenaPlan plan_;
  std::vector<std::size_t> chunks_;
  std::map<std::size_t, std::map<std::size_t, std::size_t>> pieces_;  // begin to end, of a chunk's
  std::size_t asked_ = 0;
};

// Of one rank.
struct Model {
  const char* name;
  int layers;
  int hidden;
  std::vector<std::pair<int, int>> attention;  // matrices of a layer: outputs and inputs
  std::vector<std::pair<int, int>> heads;      // and of each of its heads
  int head_count;
  int dense_layers;
  int dense_width;
  int shared_width;
  int expert_width;
  int experts;
  int vocab;
  DType dtype;
};

void take_mlp(const Model& m, int width, Taken& taken) {
  taken.take(kernels::packed_bytes(m.dtype, (width + 31) / 32 * 64, m.hidden));
  taken.take(kernels::packed_bytes(m.dtype, m.hidden, width));
}

void take_all(const Model& m, Taken& taken) {
  const auto vector = static_cast<std::size_t>(m.hidden) * sizeof(float);
  for (int layer = 0; layer < m.layers; ++layer) {
    for (const auto& [n, k] : m.attention) taken.take(kernels::packed_bytes(m.dtype, n, k));
    for (int h = 0; h < m.head_count; ++h) {
      for (const auto& [n, k] : m.heads) taken.take(kernels::packed_bytes(m.dtype, n, k));
    }
    taken.take(vector);
    taken.take(vector);
    if (layer < m.dense_layers) {
      take_mlp(m, m.dense_width, taken);
      continue;
    }
    taken.take(kernels::packed_bytes(DType::kBF16, m.experts, m.hidden));
    take_mlp(m, m.shared_width, taken);
    for (int e = 0; e < m.experts; ++e) take_mlp(m, m.expert_width, taken);
  }
  taken.take(kernels::packed_bytes(DType::kBF16, m.vocab, m.hidden));
}

const std::vector<std::pair<int, int>> kLatentHead = {{512, 128}, {128, 512}};
constexpr auto kF8 = DType::kF8E4M3;
constexpr auto kB16 = DType::kBF16;
const Model kModels[] = {
    {"V3, a part of each expert on 8",
     61,
     7168,
     {{2112, 7168}, {3072, 1536}, {7168, 2048}},
     kLatentHead,
     16,
     3,
     2304,
     256,
     256,
     256,
     16160,
     kF8},
    {"V3, whole experts on 8",
     61,
     7168,
     {{2112, 7168}, {3072, 1536}, {7168, 2048}},
     kLatentHead,
     16,
     3,
     2304,
     256,
     2048,
     32,
     16160,
     kF8},
    {"V3 on 4",
     61,
     7168,
     {{2112, 7168}, {6144, 1536}, {7168, 4096}},
     kLatentHead,
     32,
     3,
     4608,
     512,
     512,
     256,
     32320,
     kF8},
    {"V2, whole experts on 8",
     60,
     5120,
     {{2112, 5120}, {3072, 1536}, {5120, 2048}},
     kLatentHead,
     16,
     1,
     1536,
     384,
     1536,
     20,
     12800,
     kB16},
    {"V2-Lite",
     27,
     2048,
     {{576, 2048}, {3072, 2048}, {2048, 2048}},
     kLatentHead,
     16,
     1,
     10944,
     2816,
     1408,
     64,
     102400,
     kB16},
    {"Llama-70B on 8",
     80,
     8192,
     {{1280, 8192}, {8192, 1024}},
     {},
     0,
     80,
     3584,
     0,
     0,
     0,
     16032,
     kB16},
    {"Llama-2-13B on 8",
     40,
     5120,
     {{1920, 5120}, {5120, 640}},
     {},
     0,
     40,
     1728,
     0,
     0,
     0,
     4000,
     kB16},
    {"Llama-8B", 32, 4096, {{6144, 4096}, {4096, 4096}}, {}, 0, 32, 14336, 0, 0, 0, 128256, kB16},
    {"Qwen-1.5B", 28, 1536, {{2048, 1536}, {1536, 1536}}, {}, 0, 28, 8960, 0, 0, 0, 151936, kB16},
};

TEST(ArenaPlan, LosesLittleOfAModel) {
  for (const Model& model : kModels) {
    SCOPED_TRACE(model.name);
    Taken taken(kChunk);
    take_all(model, taken);
    const std::size_t lost = taken.taken() - taken.asked();
    EXPECT_LE(lost, taken.asked() / 25 + kChunk)
        << taken.asked() / kMiB << " MiB asked for, " << taken.taken() / kMiB << " taken";
    EXPECT_LE(taken.chunks().size(), 1000U) << "each costs a call of the driver";
  }
}

TEST(ArenaPlan, OfPiecesThatFillTheirUnitsLosesNone) {
  Taken taken(kChunk);
  for (int i = 0; i < 200; ++i) taken.take(kChunk);
  EXPECT_EQ(taken.taken(), taken.asked());
}

// Between large pieces there is always room for small ones.
TEST(ArenaPlan, FillsTheEndsOfChunksThatLargePiecesLeave) {
  Taken taken(kChunk);
  for (int i = 0; i < 4; ++i) taken.take(20 * kMiB + 256);
  const std::size_t before = taken.taken();
  EXPECT_LE(before, 4 * 22 * kMiB) << "more than half of a chunk is a chunk";
  for (int i = 0; i < 4; ++i) taken.take(kMiB);
  EXPECT_EQ(taken.taken(), before);
}

TEST(ArenaPlan, OfNoneHasAChunkForEachPiece) {
  Taken taken(0);
  const std::size_t sizes[] = {1, 256, 1000, 5 * kMiB};
  for (const std::size_t bytes : sizes) taken.take(bytes);
  EXPECT_EQ(taken.chunks(), (std::vector<std::size_t>{256, 256, 1024, 5 * kMiB}));
}

}  // namespace
}  // namespace dsm::device
