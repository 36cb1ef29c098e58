// Data-parallel attention: whichever rank attends to a row, and whatever the others do meanwhile,
// it has the bits that one rank computes for it alone. Of every family with latent attention.
#include <functional>
#include <string>
#include <thread>
#include <tuple>

#include "tests/model/model_fixture.h"
#include "worker/comm/thread_comm.h"
#include "worker/model/adapter_store.h"

namespace dsm::model {
namespace {

using Tokens = std::vector<engine::TokenId>;
using Logits = std::vector<float>;

std::string family(const std::string& name) {
  return "tests/goldens/families/" + name;
}

// A sequence of a batch: its tokens [begin, end) on a rank.
struct Part {
  const Tokens* text;
  std::size_t begin = 0;
  std::size_t end = 0;
  int rank = 0;
  engine::BlockId first_block = 0;
  engine::AdapterId adapter = engine::kNoAdapter;
};

engine::Row row_of(const Part& part) {
  engine::Row row =
      make_row(*part.text, part.begin, part.end, blocks_for(part.text->size(), part.first_block));
  row.rank = part.rank;
  row.adapter = part.adapter;
  return row;
}

engine::Batch batch_of(const std::vector<Part>& parts) {
  engine::Batch batch{.id = 1, .rows = {}};
  for (const Part& part : parts) batch.rows.push_back(row_of(part));
  return batch;
}

// Calls `work` on every rank with its model.
void on_ranks(const std::string& dir, RankSpec spec, kernels::DType kv_dtype,
              const std::function<void(RankModel&, comm::Communicator&)>& work) {
  auto comms = comm::make_thread_communicators(spec.size);
  std::vector<std::thread> ranks;
  ranks.reserve(comms.size());
  for (int rank = 0; rank < spec.size; ++rank) {
    ranks.emplace_back([&, rank] {
      RankSpec own = spec;
      own.rank = rank;
      const auto model = load_checkpoint(dir, own, kv_dtype);
      work(*model, *comms[static_cast<std::size_t>(rank)]);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

// Rank 0's logits of every token of every batch.
std::vector<Logits> logits_of(const std::string& dir, const RankSpec& spec,
                              const std::vector<engine::Batch>& batches,
                              kernels::DType kv_dtype = kernels::DType::kF32) {
  std::vector<Logits> all;
  on_ranks(dir, spec, kv_dtype, [&](RankModel& model, comm::Communicator& comm) {
    for (const engine::Batch& batch : batches) {
      const auto span = model.forward_all(batch, comm);
      if (comm.rank() == 0) all.emplace_back(span.begin(), span.end());
    }
  });
  return all;
}

RankSpec alone_of(int size) {
  return {.size = size, .data_parallel_attention = true};
}

// The logits of a text computed by one rank alone, from its first token on.
Logits reference(const std::string& dir, const Tokens& text, RankSpec spec = {},
                 kernels::DType kv_dtype = kernels::DType::kF32,
                 engine::AdapterId adapter = engine::kNoAdapter) {
  const Part whole{.text = &text, .end = text.size(), .adapter = adapter};
  return logits_of(dir, spec, {batch_of({whole})}, kv_dtype)[0];
}

// Two texts in chunks over two steps, on `a` and `b`: the second part of each beside the other's.
void expect_the_bits_of_one_rank(const std::string& dir, const RankSpec& spec, const Tokens& one,
                                 const Tokens& two, int a, int b,
                                 kernels::DType kv_dtype = kernels::DType::kF32) {
  SCOPED_TRACE("ranks " + std::to_string(a) + " and " + std::to_string(b) + " of " +
               std::to_string(spec.size));
  RankSpec single = spec;
  single.size = 1;
  single.data_parallel_attention = false;
  const Logits wanted_one = reference(dir, one, single, kv_dtype);
  const Logits wanted_two = reference(dir, two, single, kv_dtype);
  const std::size_t cut = one.size() / 2;
  const engine::BlockId other = a == b ? 40 : 0;  // ranks have blocks of their own
  const auto got =
      logits_of(dir, spec,
                {batch_of({{.text = &one, .end = cut, .rank = a}}),
                 batch_of({{.text = &one, .begin = cut, .end = one.size(), .rank = a},
                           {.text = &two, .end = two.size() - 1, .rank = b, .first_block = other}}),
                 batch_of({{.text = &two,
                            .begin = two.size() - 1,
                            .end = two.size(),
                            .rank = b,
                            .first_block = other}})},
                kv_dtype);
  Logits first = got[0];
  const std::size_t vocab = wanted_one.size() / one.size();
  const auto rest = std::span(got[1]).first((one.size() - cut) * vocab);
  first.insert(first.end(), rest.begin(), rest.end());
  expect_same_bits(first, wanted_one);
  Logits second(got[1].begin() + static_cast<std::ptrdiff_t>(rest.size()), got[1].end());
  second.insert(second.end(), got[2].begin(), got[2].end());
  expect_same_bits(second, wanted_two);
}

class DataParallelAttention : public testing::TestWithParam<const char*> {
 protected:
  static Tokens text() { return load_goldens(family(GetParam()) + "/golden").back().tokens; }
  static Tokens other() {
    const Tokens all = text();
    return {all.rbegin(), all.rbegin() + 150};
  }
};

TEST_P(DataParallelAttention, ARowHasTheBitsOfOneRankOnWhicheverItIs) {
  const std::string dir = family(GetParam());
  expect_the_bits_of_one_rank(dir, alone_of(2), text(), other(), 0, 1);
  expect_the_bits_of_one_rank(dir, alone_of(2), text(), other(), 1, 1);
  expect_the_bits_of_one_rank(dir, alone_of(4), text(), other(), 1, 3);
}

TEST_P(DataParallelAttention, AttendingTogetherGivesTheSame) {
  const Tokens all = text();
  const std::vector<engine::Batch> batches = {batch_of({{.text = &all, .end = all.size()}})};
  const auto together = logits_of(family(GetParam()), {.size = 4}, batches);
  const auto alone = logits_of(family(GetParam()), alone_of(4), batches);
  expect_same_bits(alone[0], together[0]);
}

TEST_P(DataParallelAttention, EveryTypeOfTheCache) {
  Tokens one = text();
  one.resize(130);
  for (const auto dtype : {kernels::DType::kBF16, kernels::DType::kF8E4M3}) {
    expect_the_bits_of_one_rank(family(GetParam()), alone_of(2), one, other(), 0, 1, dtype);
  }
}

TEST_P(DataParallelAttention, RoundedWeights) {
  Tokens one = text();
  one.resize(70);
  for (const auto bits : {kernels::DType::kInt8, kernels::DType::kInt4}) {
    RankSpec spec = alone_of(2);
    spec.round_weights = bits;
    expect_the_bits_of_one_rank(family(GetParam()), spec, one, other(), 0, 1);
  }
}

// As far from the exact mode as both may be from the reference (families_test.cc), together.
TEST_P(DataParallelAttention, TheLooseModeStaysWithinItsBound) {
  const Tokens all = text();
  const std::vector<engine::Batch> batches = {
      batch_of({{.text = &all, .end = all.size(), .rank = 1}})};
  RankSpec spec = alone_of(2);
  spec.deterministic = false;
  const Logits wanted = reference(family(GetParam()), all);
  const Logits got = logits_of(family(GetParam()), spec, batches)[0];
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 2e-3) << i;
}

INSTANTIATE_TEST_SUITE_P(Families, DataParallelAttention,
                         testing::Values("deepseek_v2_lite", "deepseek_v2", "deepseek_v3",
                                         "deepseek_v3_small", "deepseek_v32"),
                         [](const auto& name) { return std::string(name.param); });

TEST(DataParallelAttentionOf, CheckpointsInFp8) {
  const std::string dir = "tests/goldens/fp8-tiny";
  Tokens one(100);
  std::iota(one.begin(), one.end(), 3);
  const Tokens two(one.rbegin(), one.rend());
  expect_the_bits_of_one_rank(dir, alone_of(2), one, two, 0, 1);
}

TEST(DataParallelAttentionOf, AdaptersOfSomeRows) {
  const std::string dir = family("deepseek_v3");
  const Tokens one = load_goldens(dir + "/golden").back().tokens;
  const Tokens two(one.rbegin(), one.rbegin() + 90);
  const auto store_of = [&](int ranks, bool data_parallel) {
    return AdapterStore(load_model_config(dir).value(), {.ranks = ranks,
                                                         .local_ranks = ranks,
                                                         .data_parallel_attention = data_parallel,
                                                         .max_adapters = 1,
                                                         .max_rank = 8});
  };
  AdapterStore single = store_of(1, false);
  const auto held = single.load("lora-all", dir + "/lora-all").value();
  const Logits adapted = reference(dir, one, {.adapters = &single}, kernels::DType::kF32, held->id);
  const Logits plain = reference(dir, two, {.adapters = &single});
  for (const int size : {2, 4}) {
    AdapterStore store = store_of(size, true);
    const auto adapter = store.load("lora-all", dir + "/lora-all").value();
    RankSpec spec = alone_of(size);
    spec.adapters = &store;
    const std::size_t vocab = adapted.size() / one.size();
    const auto got = logits_of(
        dir, spec,
        {batch_of({{.text = &two, .end = two.size(), .rank = 0},
                   {.text = &one, .end = 64, .rank = 1, .adapter = adapter->id}}),
         batch_of(
             {{.text = &one, .begin = 64, .end = one.size(), .rank = 1, .adapter = adapter->id}})});
    expect_same_bits(std::span(got[0]).first(two.size() * vocab), plain);
    Logits joined(got[0].begin() + static_cast<std::ptrdiff_t>(two.size() * vocab), got[0].end());
    joined.insert(joined.end(), got[1].begin(), got[1].end());
    expect_same_bits(joined, adapted);
  }
}

// Each sequence's first drafts after its whole prompt.
TEST(DataParallelAttentionOf, DraftsOfTheModelsOwnLayer) {
  const auto goldens = load_goldens();
  const Tokens& one = goldens.at(5).tokens;
  const Tokens& two = goldens.at(4).tokens;
  const auto drafts_of = [&](const RankSpec& spec, int a, int b) {
    std::vector<Tokens> got(static_cast<std::size_t>(spec.size));
    on_ranks(kTinyModel, spec, kernels::DType::kF32,
             [&](RankModel& model, comm::Communicator& comm) {
               // With a block for the drafts behind the text.
               engine::Batch batch =
                   batch_of({{.text = &one, .end = one.size(), .rank = a},
                             {.text = &two, .end = two.size(), .rank = b, .first_block = 40}});
               for (engine::Row& row : batch.rows) {
                 row.block_table.push_back(row.block_table.back() + 1);
               }
               model.forward(batch, comm);
               const DraftRow rows[] = {
                   {.kept = static_cast<std::int32_t>(one.size()), .next = 5, .wanted = 3},
                   {.kept = static_cast<std::int32_t>(two.size()), .next = 9, .wanted = 2}};
               const auto span = model.draft(batch, rows, comm);
               got[static_cast<std::size_t>(comm.rank())].assign(span.begin(), span.end());
             });
    for (const Tokens& of_rank : got) EXPECT_EQ(of_rank, got[0]);
    return got[0];
  };
  const Tokens wanted = drafts_of({.drafts = true}, 0, 0);
  ASSERT_EQ(wanted.size(), 5U);
  for (const auto& [size, a, b] : {std::tuple{2, 0, 1}, {4, 1, 2}, {4, 3, 3}}) {
    RankSpec spec = alone_of(size);
    spec.drafts = true;
    EXPECT_EQ(drafts_of(spec, a, b), wanted) << size << " ranks";
  }
}

TEST(DataParallelAttentionOf, RowsOutOfTheOrderOfRanksAreRefused) {
  const Tokens text = {1, 2, 3};
  const auto model = load_tiny({.rank = 0, .size = 2, .data_parallel_attention = true});
  auto comms = comm::make_thread_communicators(2);
  for (const auto& ranks : {std::pair{1, 0}, {0, 2}, {-1, 0}}) {
    const engine::Batch batch =
        batch_of({{.text = &text, .end = text.size(), .rank = ranks.first},
                  {.text = &text, .end = text.size(), .rank = ranks.second, .first_block = 1}});
    EXPECT_THROW(model->forward(batch, *comms[0]), std::logic_error);
  }
  const auto together = load_tiny({.rank = 0, .size = 2});
  EXPECT_THROW(
      together->forward(batch_of({{.text = &text, .end = text.size(), .rank = 1}}), *comms[0]),
      std::logic_error);
}

TEST(DataParallelAttentionOf, FamiliesWithKvHeadsAreRefusedByName) {
  for (const char* name : {"llama", "qwen2"}) {
    try {
      load_checkpoint(family(name), alone_of(2));
      ADD_FAILURE() << name;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find(std::string(name) + " has KV heads"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace dsm::model
