// Steps of decoding that are recorded and started as a whole have the bits of plain ones: with
// activations in FP8, where experts' groups stay on the device, and as one kernel.
#include <cstdint>
#include <string>

#include "tests/gpu/counted_starts.h"
#include "tests/model/model_fixture.h"
#include "worker/device/devices.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

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

// Of the first so many of as many sequences as `counts` begins with, of different lengths.
void expect_plain_bits(RankModel& model, const std::vector<std::size_t>& counts = {3}) {
  const int vocab = model.config().vocab_size;
  NoComm comm;
  std::vector<Tokens> sequences(counts.front());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const int length = 3 + 31 * static_cast<int>(i);
    for (int t = 0; t < length; ++t) sequences[i].push_back((t * 31 + length) % vocab);
    const auto table = blocks_for(sequences[i].size(), static_cast<int>(8 * i));
    model.forward({1, {make_row(sequences[i], 0, sequences[i].size(), table)}}, comm);
  }
  // The first step is plain, the second is recorded; three rows are padded to four.
  for (int step = 0; step < 4; ++step) {
    for (auto& tokens : sequences) tokens.push_back((step * 11 + 3) % vocab);
    for (const std::size_t count : counts) {
      const auto end = sequences.begin() + static_cast<std::ptrdiff_t>(count);
      const std::vector<Tokens> some(sequences.begin(), end);
      const Logits plain = decoded(model, some, true);
      [[maybe_unused]] const std::uint64_t before = graphs_started();
      EXPECT_EQ(decoded(model, some, false), plain) << count << " rows, step " << step;
      if (kCounted) {
        EXPECT_EQ(graphs_started() - before, step > 0 ? 1U : 0U) << "step " << step;
      }
    }
  }
}

// Numbers of rows that are padded, and ones that are not.
TEST(RecordedSteps, HaveTheBitsOfPlainOnes) {
  const auto counts =
      kCounted ? std::vector<std::size_t>{3, 1} : std::vector<std::size_t>{5, 1, 3, 4};
  for (const char* family : {"deepseek_v3", "llama"}) {
    SCOPED_TRACE(family);
    expect_plain_bits(*load_checkpoint(std::string("tests/goldens/families/") + family,
                                       {.device = *device::find_device("auto")}),
                      counts);
  }
}

TEST(RecordedSteps, HaveTheBitsOfPlainOnesInFp8) {
  for (const bool deterministic : {true, false}) {
    SCOPED_TRACE(deterministic ? "deterministic" : "loose");
    expect_plain_bits(
        *load_checkpoint("tests/goldens/fp8-tiny", {.device = *device::find_device("auto"),
                                                    .deterministic = deterministic,
                                                    .fp8_activations = true}));
  }
}

// The embedding comes before it, and the choice of a token, which is three, after it. Scratch
// memory that grows in the first step starts what is there.
TEST(RecordedSteps, OfDeepSeeksModelsAreOneKernel) {
  if (!kCounted) GTEST_SKIP() << "nobody counts kernels here";
  for (const char* family : {"llama", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3"}) {
    const auto model = load_checkpoint(std::string("tests/goldens/families/") + family,
                                       {.device = *device::find_device("auto"),
                                        .kernels = {.megakernel_tokens = 16},
                                        .deterministic = false});
    decoded(*model, {{5}}, false);
    const std::uint64_t before = kernels_started();
    decoded(*model, {{5}}, false);
    EXPECT_EQ(kernels_started() - before, 5U) << family;
  }
}

TEST(RecordedSteps, HaveTheBitsOfPlainOnesAsOneKernel) {
  for (const char* family : {"llama", "qwen2", "qwen3", "deepseek_v2_lite", "deepseek_v3"}) {
    for (const bool deterministic : {true, false}) {
      SCOPED_TRACE(std::string(family) + (deterministic ? ", deterministic" : ", loose"));
      expect_plain_bits(*load_checkpoint(std::string("tests/goldens/families/") + family,
                                         {.device = *device::find_device("auto"),
                                          .kernels = {.megakernel_tokens = 16},
                                          .deterministic = deterministic}));
    }
  }
}

}  // namespace
}  // namespace dsm::model
