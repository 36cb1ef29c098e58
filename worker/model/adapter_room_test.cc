// What is reserved for an adapter against what one takes that has every linear, in FP32.
#include "worker/model/adapter_room.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "kernels/cpu/pack.h"

namespace dsm::model {
namespace {

std::size_t taken_by(const AdapterWeights& weights) {
  std::size_t bytes = 0;
  std::set<const void*> seen;  // segments share a matrix
  const auto add = [&](const kernels::PackedMatrix& w) {
    if (w.data == nullptr || !seen.insert(w.data).second) return;
    bytes += adapter_aligned(kernels::packed_bytes(w.dtype, w.n, w.k));
  };
  for (const AdapterLayer& layer : weights.layers) {
    for (const AdapterProduct* w : {&layer.qkv, &layer.latents, &layer.q, &layer.gate_up}) {
      add(w->a);
      add(w->b);
    }
    for (const AdapterSegments* w : {&layer.output, &layer.down}) {
      for (int s = 0; s < w->a.count; ++s) {
        add(w->a.part[s]);
        add(w->b.part[s]);
      }
    }
  }
  return bytes;
}

class AdapterRoom : public testing::TestWithParam<const char*> {};

TEST_P(AdapterRoom, IsWhatAnAdapterOfEveryLinearTakes) {
  const std::string dir = std::string("tests/goldens/families/") + GetParam();
  const auto config = load_model_config(dir);
  ASSERT_TRUE(config) << config.error().message;
  constexpr int kRank = 4;
  const auto files = AdapterFiles::open(dir + "/lora-all", *config, kRank);
  ASSERT_TRUE(files) << files.error().message;
  for (const int ranks : {1, 2}) {
    for (const bool segmented : {true, false}) {
      const RankCut rank{ranks - 1, ranks};
      const AdapterCut cut{.rank = rank, .attention = rank, .segmented = segmented};
      const std::size_t taken = taken_by(cut_adapter(*files, *config, cut));
      const std::size_t most = most_adapter_bytes(*config, cut, kRank);
      EXPECT_EQ(taken, most) << ranks << segmented;
      EXPECT_GT(most_adapter_bytes(*config, cut, 65), most);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, AdapterRoom,
                         testing::Values("llama", "qwen2", "deepseek_v3_small", "deepseek_v3"));

}  // namespace
}  // namespace dsm::model
