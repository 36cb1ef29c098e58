// After a batch of the largest shape, a step takes nothing from the heap. This program counts every
// operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "worker/model/rank_model.h"
#include "worker/model/sampler.h"

namespace {
std::atomic<long> allocations{0};
}  // namespace

// Not inlined: where the compiler sees both halves it takes free() for a mistake.
[[gnu::noinline]] void* operator new(std::size_t size) {
  allocations.fetch_add(1);
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace dsm::model {
namespace {

class Alone final : public comm::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_gather(std::span<const float>, std::span<float>) override { ADD_FAILURE(); }
  void gather(std::span<const float>, std::span<float>, int) override { ADD_FAILURE(); }
  void broadcast(std::span<std::byte>, int) override { ADD_FAILURE(); }
  void barrier() override { ADD_FAILURE(); }
  void abort() noexcept override {}
};

engine::Batch batch_of(int rows, int tokens) {
  engine::Batch batch;
  for (int r = 0; r < rows; ++r) {
    engine::Row row;
    row.tokens.assign(static_cast<std::size_t>(tokens), 100 + r);
    row.block_table = {r};
    row.logits = 1;
    batch.rows.push_back(row);
  }
  return batch;
}

TEST(Allocation, AStepTakesNothingFromTheHeapOnceTheLargestWasSeen) {
  const auto config = load_model_config("models/deepseek-tiny");
  ASSERT_TRUE(config) << config.error().message;
  const auto model = RankModel::load("models/deepseek-tiny", *config,
                                     {.threads = 2, .drafts = true}, {.num_blocks = 8}, 128, {});
  ASSERT_TRUE(model) << model.error().message;
  Alone comm;
  const auto largest = batch_of(8, 16);
  const auto prefill = batch_of(1, 60);
  const auto decode = batch_of(5, 1);
  engine::SamplingParams params;
  params.temperature = 0.7F;
  params.top_k = 20;
  params.top_p = 0.9F;
  params.seed = 3;
  std::vector<DraftRow> chosen;
  chosen.reserve(largest.rows.size());
  const auto step = [&](const engine::Batch& batch) {
    const auto logits = (*model)->forward(batch, comm);
    sample(logits.first(static_cast<std::size_t>(config->vocab_size)), params, 60);
    sample(logits.first(static_cast<std::size_t>(config->vocab_size)), {}, 60);
    chosen.clear();
    for (const auto& row : batch.rows) {
      const auto kept = static_cast<std::int32_t>(row.tokens.size());
      chosen.push_back({.kept = kept, .next = 9, .wanted = 2});
    }
    (*model)->draft(batch, chosen, comm);
  };
  step(largest);
  const long before = allocations.load();
  step(prefill);
  step(decode);
  step(largest);
  EXPECT_EQ(allocations.load(), before);
  EXPECT_GT(before, 0) << "the count does not see allocations";
}

}  // namespace
}  // namespace dsm::model
