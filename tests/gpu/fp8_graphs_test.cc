// Steps of decoding with activations in FP8: recorded and started as a whole they have the bits of
// plain ones, also where experts' groups stay on the device.
#include <cstdint>

#include "tests/model/model_fixture.h"
#include "worker/device/devices.h"

#ifdef DSM_CUDA_EMULATED
#include "kernels/cuda/emulation/graph.h"
#endif

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

// That were started on all devices of this process; a GPU does not count them.
std::uint64_t graphs_started() {
#ifdef DSM_CUDA_EMULATED
  return emulation::graphs_started();
#else
  return 0;
#endif
}
#ifdef DSM_CUDA_EMULATED
constexpr bool kCounted = true;
#else
constexpr bool kCounted = false;
#endif

// The last token of each sequence; `all` asks for a plain step.
Logits decoded(RankModel& model, const std::vector<Tokens>& sequences, bool all) {
  NoComm comm;
  engine::Batch batch{1, {}};
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Tokens& tokens = sequences[i];
    const auto table = blocks_for(tokens.size(), static_cast<int>(8 * i));
    batch.rows.push_back(make_row(tokens, tokens.size() - 1, tokens.size(), table));
  }
  const auto logits = all ? model.forward_all(batch, comm) : model.forward(batch, comm);
  return {logits.begin(), logits.end()};
}

TEST(Fp8Graphs, ARecordedStepHasTheBitsOfAPlainOne) {
  for (const bool deterministic : {true, false}) {
    const auto model =
        load_checkpoint("tests/goldens/fp8-tiny", {.device = *device::find_device("auto"),
                                                   .deterministic = deterministic,
                                                   .fp8_activations = true});
    const int vocab = model->config().vocab_size;
    NoComm comm;
    std::vector<Tokens> sequences(3);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const int length = 3 + 20 * static_cast<int>(i);
      for (int t = 0; t < length; ++t) sequences[i].push_back((t * 31 + length) % vocab);
      const auto table = blocks_for(sequences[i].size(), static_cast<int>(8 * i));
      model->forward({1, {make_row(sequences[i], 0, sequences[i].size(), table)}}, comm);
    }
    // The first step is plain, the second is recorded; three rows are padded to four.
    for (int step = 0; step < 4; ++step) {
      for (auto& tokens : sequences) tokens.push_back((step * 11 + 3) % vocab);
      const Logits plain = decoded(*model, sequences, true);
      const std::uint64_t before = graphs_started();
      EXPECT_EQ(decoded(*model, sequences, false), plain)
          << "step " << step << ", deterministic: " << deterministic;
      if (kCounted) {
        EXPECT_EQ(graphs_started() - before, step > 0 ? 1U : 0U) << "step " << step;
      }
    }
  }
}

}  // namespace
}  // namespace dsm::model
