// KV caches in BF16 and FP8: how far logits are from those of FP32, for the default model and every
// family, and that within a type a row has the same bits however it is run.
#include <cmath>
#include <string>
#include <thread>

#include "tests/model/chunked.h"
#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"

namespace dsm::model {
namespace {

using kernels::DType;
using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

// How far logits are from others.
struct Distance {
  double largest = 0;
  double share = 0;  // root of the mean square, of that of the logits
  double same = 0;   // part of the positions with the same greedy token
};

struct Bound {
  double share;
  double same;
};

struct CacheCase {
  const char* name;
  std::string dir;
  std::string golden;
  // Of logits with such a cache to those with an FP32 cache. Where there are experts or an indexer
  // a rounding may change a choice, and with it a position's logits at once.
  Bound bf16;
  Bound fp8;
};

Distance distance(std::span<const float> got, std::span<const float> wanted, std::size_t vocab) {
  EXPECT_EQ(got.size(), wanted.size());
  Distance d;
  double squares = 0;
  double all = 0;
  for (std::size_t at = 0; at < wanted.size(); at += vocab) {
    const auto ours = got.subspan(at, vocab);
    const auto theirs = wanted.subspan(at, vocab);
    for (std::size_t v = 0; v < vocab; ++v) {
      const double difference = std::abs(static_cast<double>(ours[v]) - theirs[v]);
      d.largest = std::max(d.largest, difference);
      squares += difference * difference;
      all += static_cast<double>(theirs[v]) * theirs[v];
    }
    const auto best = [](auto row) {
      return std::max_element(row.begin(), row.end()) - row.begin();
    };
    if (best(ours) == best(theirs))
      d.same += static_cast<double>(vocab) / static_cast<double>(wanted.size());
  }
  d.share = std::sqrt(squares / all);
  return d;
}

class KvCacheTypes : public testing::TestWithParam<CacheCase> {
 protected:
  static std::unique_ptr<RankModel> load(DType dtype, RankSpec spec = {}) {
    return load_checkpoint(GetParam().dir, spec, dtype);
  }
  static Tokens longest() { return load_goldens(GetParam().golden).back().tokens; }
};

TEST_P(KvCacheTypes, LogitsAreWithinTheirBoundOfFp32s) {
  NoComm comm;
  const auto tokens = longest();
  const auto exact = load(DType::kF32);
  const auto vocab = static_cast<std::size_t>(exact->config().vocab_size);
  const auto wanted = chunked(*exact, comm, tokens, {});
  for (const auto& [dtype, bound] :
       {std::pair{DType::kBF16, GetParam().bf16}, {DType::kF8E4M3, GetParam().fp8}}) {
    const auto d = distance(chunked(*load(dtype), comm, tokens, {}), wanted, vocab);
    std::printf("%s, %s: %.2e of the logits, largest difference %.2e, %.1f %% the same token\n",
                GetParam().name, dtype == DType::kBF16 ? "bf16" : "fp8", d.share, d.largest,
                100 * d.same);
    EXPECT_LT(d.share, bound.share);
    EXPECT_GE(d.same, bound.same);
    EXPECT_GT(d.share, 0) << "nothing was rounded";
  }
}

TEST_P(KvCacheTypes, ChunksBlocksAndInstructionSetsDoNotMatter) {
  NoComm comm;
  auto tokens = longest();
  tokens.resize(std::min<std::size_t>(tokens.size(), 200));
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    const auto model = load(dtype);
    const auto whole = chunked(*model, comm, tokens, {});
    // In other blocks, which held others' tokens before; one position at a time, too.
    expect_same_bits(chunked(*model, comm, tokens, {1, 2, 65, 128}, 40), whole);
    // The end anew, over what is cached of the beginning.
    const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
    const auto again = model->forward_all(
        {1, {make_row(tokens, 64, tokens.size(), blocks_for(tokens.size(), 40))}}, comm);
    expect_same_bits(again, std::span(whole).subspan(64 * vocab));
    for (const kernels::Ops* ops : kernels::available_ops()) {
      const Tokens some(tokens.begin(), tokens.begin() + 70);
      expect_same_bits(chunked(*load(dtype, {.ops = ops}), comm, some, {}),
                       std::span(whole).first(70 * vocab));
    }
  }
}

TEST_P(KvCacheTypes, TheNumberOfRanksDoesNotMatter) {
  NoComm alone;
  auto tokens = longest();
  tokens.resize(std::min<std::size_t>(tokens.size(), 100));
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    const auto whole = chunked(*load(dtype), alone, tokens, {});
    auto comms = comm::make_thread_communicators(2);
    std::vector<Logits> got(2);
    std::vector<std::thread> ranks;
    ranks.reserve(2);
    for (int rank = 0; rank < 2; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto at = static_cast<std::size_t>(rank);
        const auto model = load(dtype, {.rank = rank, .size = 2});
        got[at] = chunked(*model, *comms[at], tokens, {64});
      });
    }
    for (auto& rank : ranks) rank.join();
    expect_same_bits(got[0], whole);
  }
}

// A long prompt of the loose mode is attended to with keys that are expanded from the cache. A
// value that lies between two of the cache's may go to either.
TEST_P(KvCacheTypes, TheLooseModeReadsTheSameCache) {
  NoComm comm;
  const auto tokens = longest();
  for (const auto& [dtype, bound] :
       {std::pair{DType::kBF16, GetParam().bf16}, {DType::kF8E4M3, GetParam().fp8}}) {
    const auto model = load(dtype);
    const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
    const auto wanted = chunked(*model, comm, tokens, {});
    const auto d =
        distance(chunked(*load(dtype, {.deterministic = false}), comm, tokens, {}), wanted, vocab);
    EXPECT_LT(d.share, bound.share);
    EXPECT_GE(d.same, bound.same);
  }
}

CacheCase family(const char* name, Bound bf16, Bound fp8) {
  const std::string dir = std::string("tests/goldens/families/") + name;
  return {name, dir, dir + "/golden", bf16, fp8};
}

INSTANTIATE_TEST_SUITE_P(All, KvCacheTypes,
                         testing::Values(CacheCase{"deepseek_tiny",
                                                   kTinyModel,
                                                   "tests/goldens/deepseek-tiny",
                                                   {0.1, 0.9},
                                                   {0.3, 0.8}},
                                         family("llama", {0.01, 0.97}, {0.1, 0.9}),
                                         family("qwen2", {0.01, 0.97}, {0.1, 0.9}),
                                         family("deepseek_v2_lite", {0.1, 0.9}, {0.3, 0.8}),
                                         family("deepseek_v3_small", {0.1, 0.9}, {0.3, 0.8}),
                                         family("deepseek_v32", {0.2, 0.8}, {0.5, 0.6})),
                         [](const auto& cache) { return std::string(cache.param.name); });

}  // namespace
}  // namespace dsm::model
