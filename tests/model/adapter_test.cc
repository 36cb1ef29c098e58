// LoRA adapters on a tiny random model of each kind, against PEFT in FP32
// (tests/goldens/make_lora_goldens.py) and against themselves: a row has the same bits whatever
// adapters the others in its batch have, however it is chunked and cut over ranks.
#include <cmath>
#include <string>
#include <thread>

#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"
#include "worker/model/adapter_store.h"

namespace dsm::model {
namespace {

constexpr double kBound = 1e-3;  // as families_test.cc
// In every folder of make_lora_goldens.py: all linears that can have one, and a few with another
// rank.
constexpr const char* kAdapters[] = {"lora-all", "lora-some"};

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

class Adapters : public testing::TestWithParam<const char*> {
 protected:
  static std::string dir() { return std::string("tests/goldens/families/") + GetParam(); }
  static std::vector<GoldenCase> goldens(const std::string& adapter) {
    return load_goldens(dir() + "/" + adapter + "/golden");
  }
  // The two adapters, which have the numbers 1 and 2, as `size` ranks hold them.
  struct Loaded {
    explicit Loaded(int size, bool segmented = true)
        : store(load_model_config(dir()).value(), {.ranks = size,
                                                   .local_ranks = size,
                                                   .segmented = segmented,
                                                   .max_adapters = 2,
                                                   .max_rank = 8}) {
      for (const char* name : kAdapters) {
        auto adapter = store.load(name, dir() + "/" + name);
        if (!adapter) throw std::runtime_error(adapter.error().message);
        held.push_back(std::move(*adapter));
      }
    }
    AdapterStore store;
    std::vector<std::shared_ptr<const engine::Adapter>> held;
  };
  static engine::Row row_of(engine::AdapterId adapter, const Tokens& tokens, std::size_t begin,
                            std::size_t end, engine::BlockId first_block) {
    auto row = make_row(tokens, begin, end, blocks_for(tokens.size(), first_block));
    row.adapter = adapter;
    return row;
  }
  // The largest difference of the logits of all golden cases.
  static double difference_to_peft(RankModel& model, engine::AdapterId id,
                                   const std::vector<GoldenCase>& goldens) {
    const auto vocab = static_cast<std::size_t>(model.config().vocab_size);
    NoComm comm;
    double worst = 0;
    for (const auto& golden : goldens) {
      const auto logits = chunked(model, comm, id, golden.tokens, {});
      for (std::size_t i = 0; i < golden.positions.size(); ++i) {
        for (std::size_t v = 0; v < vocab; ++v) {
          const double ours = logits[golden.positions[i] * vocab + v];
          worst = std::max(worst, std::abs(ours - golden.logits[i][v]));
        }
      }
    }
    return worst;
  }
  // Logits of every position of the tokens, fed in chunks that end at `cuts`.
  static Logits chunked(RankModel& model, comm::Communicator& comm, engine::AdapterId adapter,
                        const Tokens& tokens, std::vector<std::size_t> cuts) {
    Logits logits;
    std::size_t begin = 0;
    cuts.push_back(tokens.size());
    for (const auto cut : cuts) {
      const auto span = model.forward_all({1, {row_of(adapter, tokens, begin, cut, 0)}}, comm);
      logits.insert(logits.end(), span.begin(), span.end());
      begin = cut;
    }
    return logits;
  }
};

TEST_P(Adapters, LogitsAndGreedyTokensAreThoseOfPeft) {
  const Loaded loaded(1);
  const auto model = load_checkpoint(dir(), {.adapters = &loaded.store});
  NoComm comm;
  for (std::size_t a = 0; a < std::size(kAdapters); ++a) {
    const auto id = loaded.held[a]->id;
    for (const auto& golden : goldens(kAdapters[a])) {
      auto tokens = golden.tokens;
      Tokens continuation;
      for (std::size_t done = 0; continuation.size() < golden.continuation.size();) {
        const std::size_t size = tokens.size();
        const auto span = model->forward({1, {row_of(id, tokens, done, size, 0)}}, comm);
        done = size;
        const auto best = std::max_element(span.begin(), span.end()) - span.begin();
        continuation.push_back(static_cast<engine::TokenId>(best));
        tokens.push_back(continuation.back());
      }
      EXPECT_EQ(continuation, golden.continuation) << golden.tokens.size() << " tokens";
    }
    const double worst = difference_to_peft(*model, id, goldens(kAdapters[a]));
    EXPECT_LT(worst, kBound) << kAdapters[a];
    std::printf("%s, %s: largest difference to PEFT: %.2e\n", GetParam(), kAdapters[a], worst);
  }
}

TEST_P(Adapters, TheLooseModeIsNearPeft) {
  const Loaded loaded(1, /*segmented=*/false);
  const auto model = load_checkpoint(dir(), {.deterministic = false, .adapters = &loaded.store});
  for (std::size_t a = 0; a < std::size(kAdapters); ++a) {
    EXPECT_LT(difference_to_peft(*model, loaded.held[a]->id, goldens(kAdapters[a])), kBound)
        << kAdapters[a];
  }
}

TEST_P(Adapters, AnAdapterInOtherSegmentsThanTheModelIsNoticed) {
  const Loaded loaded(1, /*segmented=*/false);
  const auto model = load_checkpoint(dir(), {.adapters = &loaded.store});
  NoComm comm;
  EXPECT_THROW(chunked(*model, comm, 1, {1, 2, 3}, {}), std::logic_error);
}

TEST_P(Adapters, ARowHasItsBitsWhateverAdaptersTheOthersHave) {
  const Loaded loaded(1);
  const auto model = load_checkpoint(dir(), {.adapters = &loaded.store});
  const auto without = load_checkpoint(dir(), {});
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  NoComm comm;
  const auto tokens = goldens(kAdapters[0]).back().tokens;
  // Alone: the model as it is, then with each adapter.
  std::vector<Logits> alone = {chunked(*without, comm, engine::kNoAdapter, tokens, {})};
  for (const engine::AdapterId id : {1, 2}) {
    alone.push_back(chunked(*model, comm, id, tokens, {}));
    EXPECT_NE(alone.back(), alone[alone.size() - 2]);
    expect_same_bits(chunked(*model, comm, id, tokens, {1, 2, 65, 128}), alone.back());
  }
  // Together: first a part of each prompt, then the rest of some and the last token of others.
  const engine::AdapterId ids[] = {1, 0, 2, 1, 1, 0};
  const std::size_t first = tokens.size() / 2;
  const std::size_t last = tokens.size() - 1;
  engine::Batch prompts{.id = 1, .rows = {}};
  engine::Batch ends{.id = 2, .rows = {}};
  for (std::size_t i = 0; i < std::size(ids); ++i) {
    const std::size_t begin = i % 2 == 0 ? first : last;
    const auto block = static_cast<engine::BlockId>(8 * i);
    prompts.rows.push_back(row_of(ids[i], tokens, 0, begin, block));
    ends.rows.push_back(row_of(ids[i], tokens, begin, tokens.size(), block));
  }
  model->forward(prompts, comm);
  const auto span = model->forward(ends, comm);
  ASSERT_EQ(span.size(), std::size(ids) * vocab);
  for (std::size_t i = 0; i < std::size(ids); ++i) {
    SCOPED_TRACE(i);
    expect_same_bits(span.subspan(i * vocab, vocab),
                     std::span(alone[static_cast<std::size_t>(ids[i])]).last(vocab));
  }
}

TEST_P(Adapters, TheNumberOfRanksDoesNotMatter) {
  NoComm none;
  const auto tokens = goldens(kAdapters[0]).back().tokens;
  const Loaded whole(1);
  const auto model = load_checkpoint(dir(), {.adapters = &whole.store});
  for (const int size : {2, 4}) {
    const Loaded loaded(size);
    for (const engine::AdapterId id : {1, 2}) {
      SCOPED_TRACE(size);
      auto comms = comm::make_thread_communicators(size);
      Logits got;
      std::vector<std::thread> ranks;
      ranks.reserve(static_cast<std::size_t>(size));
      for (int rank = 0; rank < size; ++rank) {
        ranks.emplace_back([&, rank] {
          const auto mine =
              load_checkpoint(dir(), {.rank = rank, .size = size, .adapters = &loaded.store});
          auto logits = chunked(*mine, *comms[static_cast<std::size_t>(rank)], id, tokens, {64});
          if (rank == 0) got = std::move(logits);
        });
      }
      for (auto& rank : ranks) rank.join();
      expect_same_bits(got, chunked(*model, none, id, tokens, {}));
    }
  }
}

TEST_P(Adapters, InstructionSetsAndThreadsDoNotMatter) {
  NoComm comm;
  auto tokens = goldens(kAdapters[0]).back().tokens;
  tokens.resize(70);
  const Loaded loaded(1);
  const auto model = load_checkpoint(dir(), {.adapters = &loaded.store});
  const auto wanted = chunked(*model, comm, 1, tokens, {});
  for (const kernels::Ops* ops : kernels::available_ops()) {
    const auto other =
        load_checkpoint(dir(), {.threads = 3, .ops = ops, .adapters = &loaded.store});
    expect_same_bits(chunked(*other, comm, 1, tokens, {}), wanted);
  }
}

TEST_P(Adapters, AnAdapterThatNobodyHoldsCannotBeComputedWith) {
  Loaded loaded(1);
  const auto model = load_checkpoint(dir(), {.adapters = &loaded.store});
  const auto without = load_checkpoint(dir(), {});
  NoComm comm;
  const Tokens tokens = {1, 2, 3};
  const auto before = chunked(*model, comm, 2, tokens, {});
  loaded.held[0] = nullptr;
  EXPECT_THROW(chunked(*model, comm, 1, tokens, {}), std::logic_error);
  EXPECT_THROW(chunked(*without, comm, 2, tokens, {}), std::logic_error);
  EXPECT_EQ(loaded.store.size(), 1);
  expect_same_bits(chunked(*model, comm, 2, tokens, {}), before);
}

INSTANTIATE_TEST_SUITE_P(All, Adapters,
                         testing::Values("llama", "qwen2", "deepseek_v3", "deepseek_v3_small"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace dsm::model
