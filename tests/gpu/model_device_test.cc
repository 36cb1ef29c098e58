// The whole model on the device that is there, a GPU or else the CPU: the default model and the
// tiny checkpoints of all families against their references, greedy tokens like the CPU's, and the
// same bits for a row however it is batched and cut. What a device cannot do it refuses by name.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/model/model_fixture.h"
#include "tests/model/wide_heads.h"
#include "worker/device/devices.h"
#include "worker/device/same_bits.h"
#include "worker/model/adapter_store.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

// Logits to the references in FP32; with one BF16 term for an activation, eight bits of it take
// part, of queries and attention's weights, too: an H100 is 0.16 off.
constexpr double kBound = 2e-3;
constexpr double kLooseBound = 0.25;

device::Device device_here() {
  return *device::find_device("auto");
}

// The emulated GPU (kernels/cuda/emulation) takes the shorter cases.
#ifdef DSM_CUDA_EMULATED
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// At most `emulated_tokens` on the emulated GPU.
std::vector<GoldenCase> goldens_of(const std::string& name, std::size_t emulated_tokens) {
  auto goldens = load_goldens(name);
  if (!kEmulated) return goldens;
  std::erase_if(goldens, [&](const auto& g) { return g.tokens.size() > emulated_tokens; });
  for (auto& golden : goldens) golden.continuation.resize(3);
  return goldens;
}
std::vector<GoldenCase> tiny_goldens() {
  return goldens_of("tests/goldens/deepseek-tiny", 2);
}

constexpr const char* kFamilies[] = {"deepseek_v2",  "deepseek_v2_lite",
                                     "deepseek_v3",  "deepseek_v3_small",
                                     "deepseek_v32", "llama",
                                     "qwen2",        "qwen3"};
std::string family_dir(const std::string& name) {
  return "tests/goldens/families/" + name;
}

double largest_difference(RankModel& model, const std::vector<GoldenCase>& goldens,
                          engine::AdapterId adapter = engine::kNoAdapter) {
  NoComm comm;
  const auto vocab = static_cast<std::size_t>(model.config().vocab_size);
  double difference = 0;
  for (const auto& golden : goldens) {
    auto row = make_row(golden.tokens, 0, golden.tokens.size(), blocks_for(golden.tokens.size()));
    row.adapter = adapter;
    const auto logits = model.forward_all({1, {std::move(row)}}, comm);
    for (std::size_t i = 0; i < golden.positions.size(); ++i) {
      for (std::size_t v = 0; v < vocab; ++v) {
        const double ours = logits[golden.positions[i] * vocab + v];
        difference = std::max(difference, std::abs(ours - golden.logits[i][v]));
      }
    }
  }
  return difference;
}

Tokens greedy(RankModel& model, Tokens tokens, std::size_t count) {
  NoComm comm;
  const auto table = blocks_for(tokens.size() + count);
  std::size_t done = 0;
  Tokens continuation;
  while (continuation.size() < count) {
    const engine::Batch batch{1, {make_row(tokens, done, tokens.size(), table)}};
    done = tokens.size();
    const auto logits = model.forward(batch, comm);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    continuation.push_back(static_cast<engine::TokenId>(best));
    tokens.push_back(continuation.back());
  }
  return continuation;
}

TEST(ModelOnDevice, TheDefaultModelsGreedyTokensAreThoseOfTheReference) {
  const auto model = load_tiny({.device = device_here()});
  const auto goldens = tiny_goldens();
  EXPECT_LT(largest_difference(*model, goldens), kBound);
  for (const auto& golden : goldens) {
    EXPECT_EQ(greedy(*model, golden.tokens, golden.continuation.size()), golden.continuation)
        << golden.tokens.size() << " tokens";
  }
}

TEST(ModelOnDevice, TheLooseModeIsNear) {
  const auto model = load_tiny({.device = device_here(), .deterministic = false});
  EXPECT_LT(largest_difference(*model, tiny_goldens()), kLooseBound);
}

TEST(ModelOnDevice, EveryFamilyIsNearItsReference) {
  for (const std::string name : kFamilies) {
    const auto model = load_checkpoint(family_dir(name), {.device = device_here()});
    const auto goldens = goldens_of(family_dir(name) + "/golden", 65);
    EXPECT_LT(largest_difference(*model, goldens), kBound) << name;
    for (const auto& golden : goldens) {
      EXPECT_EQ(greedy(*model, golden.tokens, golden.continuation.size()), golden.continuation)
          << name << ", " << golden.tokens.size() << " tokens";
    }
  }
}

// Logits of the same prompt.
struct Both {
  Logits device;
  Logits cpu;
};
Both on_both(const std::string& dir, RankSpec spec, int count) {
  const auto on_cpu = load_checkpoint(dir, spec);
  spec.device = device_here();
  const auto on_device = load_checkpoint(dir, spec);
  Tokens tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 37 + 5) % on_cpu->config().vocab_size);
  NoComm comm;
  const engine::Batch batch{1, {make_row(tokens, 0, tokens.size(), blocks_for(tokens.size()))}};
  const auto logits = [&](RankModel& model) {
    const auto all = model.forward_all(batch, comm);
    return Logits(all.begin(), all.end());
  };
  return {logits(*on_device), logits(*on_cpu)};
}

void expect_near_the_cpu(const std::string& dir, RankSpec spec, double bound = kBound) {
  const auto [got, wanted] = on_both(dir, spec, kEmulated ? 20 : 100);
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], bound) << i;
}

// In the loose mode, of tokens that stand in groups of experts of more than 16 and 48 rows on
// average, and end within their tiles; of the longer one heads' keys and values are expanded. A
// rounding may change a token's choice of experts, and with it its logits at once, so they are
// looked at together: one token that were wrong altogether would be a tenth of them.
void expect_together_near(const Logits& got, const Logits& wanted, const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size());
  double differences = 0;
  double all = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = static_cast<double>(got[i]) - wanted[i];
    differences += difference * difference;
    all += static_cast<double>(wanted[i]) * wanted[i];
  }
  EXPECT_LT(std::sqrt(differences / all), 0.05) << what;
}
void expect_together_near_the_cpu(std::span<const std::string> dirs, int tokens,
                                  std::optional<kernels::DType> round_weights = {}) {
  for (const std::string& dir : dirs) {
    const auto [got, wanted] =
        on_both(dir, {.deterministic = false, .round_weights = round_weights}, tokens);
    expect_together_near(got, wanted, dir + ", " + std::to_string(tokens) + " tokens");
  }
}

TEST(ModelOnDevice, PromptsOverExpertsAndLatentsAreNearTheCpu) {
  const TestDir wide;
  write_wide_heads(wide);
  const std::vector<std::string> dirs = {kLiteModel, wide.path().string()};
  for (const int tokens : {60, 140}) expect_together_near_the_cpu(dirs, tokens);
}

// Rows of norms and of SwiGLU go to the next products as their operands.
TEST(ModelOnDevice, LongPromptsAreNearTheCpu) {
  const std::vector<std::string> dirs = {kLiteModel, family_dir("llama")};
  expect_together_near_the_cpu(dirs, 700);
}

// The same by weights in integers, which have rows of their own as operands, too, and experts'.
TEST(ModelOnDevice, LongPromptsByIntegersAreNearTheCpu) {
  const std::vector<std::string> dirs = {kLiteModel, family_dir("llama")};
  expect_together_near_the_cpu(dirs, 700, kernels::DType::kInt8);
  expect_together_near_the_cpu(dirs, 600, kernels::DType::kInt4);
}

TEST(ModelOnDevice, Fp8CheckpointsAreNearTheCpu) {
  expect_near_the_cpu("tests/goldens/fp8-tiny", {});
}

// A last digit of a product decides now and then to which FP8 value an activation is rounded.
TEST(ModelOnDevice, Fp8ActivationsAreNearTheCpu) {
  expect_near_the_cpu("tests/goldens/fp8-tiny", {.fp8_activations = true}, kLooseBound);
}

// Rows of norms and what else the next product alone reads become its operands in FP8 at once,
// where kKernel has them rounded and then packed. Both have the same kernels for weights in FP8
// whose rows are not; pairs of thread blocks have another exponential in SwiGLU. A last digit of
// that decides now and then to which FP8 value an activation is rounded: logits of kernels whose
// weights differ by 2^-8, and those of the CPU, are a tenth apart.
TEST(ModelOnDevice, LongPromptsInFp8AreNearThoseOfRowsThatAreRoundedApart) {
  const auto logits = [&](const device::KernelChoice& kernels) {
    const auto model = load_checkpoint("tests/goldens/fp8-tiny", {.device = device_here(),
                                                                  .kernels = kernels,
                                                                  .deterministic = false,
                                                                  .fp8_activations = true});
    // 512 rows; of several sequences, since attention to a long one takes most of the time here.
    const std::size_t sequences = kEmulated ? 8 : 1;
    engine::Batch batch{1, {}};
    std::vector<Tokens> prompts(sequences);
    for (std::size_t s = 0; s < sequences; ++s) {
      for (std::size_t i = 0; i < 512 / sequences; ++i) {
        const auto token = static_cast<int>(i * 37 + s * 11 + 5);
        prompts[s].push_back(token % model->config().vocab_size);
      }
      batch.rows.push_back(make_row(prompts[s], 0, prompts[s].size(),
                                    blocks_for(prompts[s].size(), static_cast<int>(8 * s))));
    }
    NoComm comm;
    const auto all = model->forward_all(batch, comm);
    return Logits(all.begin(), all.end());
  };
  expect_together_near(logits(device::all_kernels()),
                       logits({.many_rows = device::ManyRows::kKernel}), "held");
}

TEST(ModelOnDevice, WeightsRoundedToIntegersAreNearTheCpu) {
  for (const kernels::DType dtype : {kernels::DType::kInt8, kernels::DType::kInt4}) {
    for (const char* dir : {kTinyModel, "tests/goldens/fp8-tiny", "tests/goldens/families/qwen2"}) {
      SCOPED_TRACE(dir);
      // On the CPU rows are integers of 16 bits then.
      expect_near_the_cpu(dir, {.round_weights = dtype}, 0.02);
    }
  }
}

// All linears adapted, and a few; loaded, forgotten and loaded anew while the model stays.
TEST(ModelOnDevice, AdaptersAreNearTheReference) {
  for (const std::string name : {"llama", "deepseek_v3", "qwen2", "deepseek_v3_small"}) {
    if (kEmulated && name == "qwen2") break;
    const std::string dir = family_dir(name);
    AdapterStore store(*load_model_config(dir),
                       {.segmented = cuts_segments(device_here(), true), .max_rank = 8});
    const auto model = load_checkpoint(dir, {.device = device_here(), .adapters = &store});
    for (const std::string adapter : {"lora-all", "lora-some", "lora-all"}) {
      const auto loaded = store.load(adapter, dir + "/" + adapter);
      ASSERT_TRUE(loaded) << loaded.error().message;
      const auto goldens = goldens_of(dir + "/" + adapter + "/golden", 65);
      EXPECT_LT(largest_difference(*model, goldens, (*loaded)->id), kBound)
          << name << ", " << adapter;
    }
    EXPECT_LT(largest_difference(*model, goldens_of(dir + "/golden", 65)), kBound) << name;
  }
}

// Logits of every position, fed in chunks that end at `cuts`, beside another sequence.
Logits chunked(RankModel& model, const Tokens& tokens, std::vector<std::size_t> cuts,
               const Tokens& other) {
  NoComm comm;
  Logits logits;
  std::size_t begin = 0;
  cuts.push_back(tokens.size());
  for (const auto cut : cuts) {
    engine::Batch batch{1, {make_row(tokens, begin, cut, blocks_for(tokens.size(), 10))}};
    if (!other.empty()) {
      batch.rows.push_back(make_row(other, 0, other.size(), blocks_for(other.size(), 40)));
    }
    const auto all = model.forward_all(batch, comm);
    const auto count = (cut - begin) * static_cast<std::size_t>(model.config().vocab_size);
    logits.insert(logits.end(), all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count));
    begin = cut;
  }
  return logits;
}

TEST(ModelOnDevice, ARowHasTheSameBitsHoweverItIsBatchedAndCut) {
  std::vector<std::string> dirs;
  if (!kEmulated) dirs.emplace_back(kTinyModel);
  for (const std::string name : kFamilies) dirs.push_back(family_dir(name));
  for (const std::string& dir : dirs) {
    const auto model = load_checkpoint(dir, {.device = device_here()});
    Tokens tokens;
    Tokens other;
    const auto most =
        static_cast<std::size_t>(std::min(kEmulated ? 70 : 300, model->config().max_positions));
    for (std::size_t i = 0; i < most; ++i) {
      tokens.push_back(static_cast<int>(i * 31 + 7) % model->config().vocab_size);
      other.push_back(static_cast<int>(i * 17 + 3) % model->config().vocab_size);
    }
    const auto wanted = chunked(*model, tokens, {}, {});
    EXPECT_EQ(chunked(*model, tokens, {1, 2, most / 3, most / 2}, {}), wanted) << dir;
    EXPECT_EQ(chunked(*model, tokens, {most / 4}, other), wanted) << dir;
  }
}

// The kernel for many rows, and those for few, which take the pieces of a prompt that is cut. On a
// GPU whose tensor cores add alike in both (worker/device/same_bits.h).
TEST(ModelOnDevice, TheDeterministicModeHasTheSameBitsByTheKernelForManyRows) {
  const device::KernelChoice wide = {.wide_exact_from = 1};
  const auto backend = [](const device::KernelChoice& kernels) {
    return device::make_backend({.device = device_here(), .kernels = kernels});
  };
  const auto difference = device::different_bits(*backend({}), *backend(wide));
  if (!difference.empty()) GTEST_SKIP() << difference;
  for (const std::string name : {"llama", "deepseek_v2_lite"}) {
    for (const std::optional<kernels::DType> round :
         {std::optional<kernels::DType>{}, std::optional{kernels::DType::kInt4}}) {
      if (kEmulated && round && name != "llama") continue;
      const auto load = [&](const device::KernelChoice& kernels) {
        return load_checkpoint(
            family_dir(name),
            {.device = device_here(), .kernels = kernels, .round_weights = round});
      };
      const auto many = load(wide);
      Tokens tokens;
      for (int i = 0; i < (kEmulated ? 70 : 300); ++i) {
        tokens.push_back((i * 31 + 7) % many->config().vocab_size);
      }
      const auto wanted = chunked(*load({}), tokens, {}, {});
      EXPECT_EQ(chunked(*many, tokens, {}, {}), wanted) << name;
      EXPECT_EQ(chunked(*many, tokens, {1, 18, 40}, Tokens(tokens.begin(), tokens.begin() + 20)),
                wanted)
          << name;
    }
  }
}

TEST(ModelOnDevice, DraftsAreTheCpus) {
  const auto on_device = load_tiny({.device = device_here(), .drafts = true});
  const auto on_cpu = load_tiny({.drafts = true});
  NoComm comm;
  for (const auto& golden : tiny_goldens()) {
    const auto table = blocks_for(golden.tokens.size() + 8);
    const engine::Batch batch{1, {make_row(golden.tokens, 0, golden.tokens.size(), table)}};
    const DraftRow row{.kept = static_cast<std::int32_t>(golden.tokens.size()),
                       .next = golden.continuation.front(),
                       .wanted = 2};
    on_device->forward(batch, comm);
    on_cpu->forward(batch, comm);
    const auto got = on_device->draft(batch, {&row, 1}, comm);
    const auto wanted = on_cpu->draft(batch, {&row, 1}, comm);
    EXPECT_TRUE(std::ranges::equal(got, wanted)) << golden.tokens.size() << " tokens";
  }
}

}  // namespace
}  // namespace dsm::model
