// Time of RankModel::forward on the default model, without scheduler or server:
//   build/release/model-bench [threads] [context] [steps]
// Prints decode steps at several batch sizes and prefill of a prompt.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "worker/model/rank_model.h"

namespace {

using namespace dsm;
using Clock = std::chrono::steady_clock;

class Alone final : public comm::Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_gather(std::span<const float>, std::span<float>) override {}
  void gather(std::span<const float>, std::span<float>, int) override {}
  void broadcast(std::span<std::byte>, int) override {}
  void barrier() override {}
  void abort() noexcept override {}
};

engine::Batch batch_of(int rows, int start, int tokens, int blocks_per_row) {
  engine::Batch batch;
  for (int r = 0; r < rows; ++r) {
    engine::Row row;
    row.start = start;
    for (int i = 0; i < tokens; ++i) row.tokens.push_back(10 + (r * 131 + i * 17) % 1400);
    for (int b = 0; b < blocks_per_row; ++b) row.block_table.push_back(r * blocks_per_row + b);
    row.logits = 1;
    batch.rows.push_back(std::move(row));
  }
  return batch;
}

// Seconds of a step: the quickest, the middle one, and this thread's mean time on a core, which
// other programs on the machine do not lengthen.
struct Times {
  double best;
  double median;
  double cpu;
};

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

Times measure(model::RankModel& model, const engine::Batch& batch, int steps) {
  Alone comm;
  std::vector<double> times;
  model.forward(batch, comm);
  const double cpu = thread_seconds();
  for (int i = 0; i < steps; ++i) {
    const auto begin = Clock::now();
    model.forward(batch, comm);
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  const double cpu_mean = (thread_seconds() - cpu) / steps;
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2], cpu_mean};
}

void print(const char* what, int tokens, int context, Times t) {
  std::printf(
      "%-8s %5d tokens at %5d: best %9.1f us %7.0f tok/s, median %9.1f us, cpu %9.1f us %7.0f "
      "tok/s\n",
      what, tokens, context, t.best * 1e6, tokens / t.best, t.median * 1e6, t.cpu * 1e6,
      tokens / t.cpu);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int context = argc > 2 ? std::atoi(argv[2]) : 128;
  const int steps = argc > 3 ? std::atoi(argv[3]) : 200;
  constexpr const char* kModel = "models/deepseek-tiny";
  const auto config = model::load_model_config(kModel);
  if (!config) {
    std::fprintf(stderr, "%s\n", config.error().message.c_str());
    return 1;
  }
  const int blocks = context / engine::kBlockTokens + 1;
  auto loaded = model::RankModel::load(kModel, *config, {.threads = threads},
                                       {.num_blocks = 64 * blocks + 32}, 2048, {});
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    return 1;
  }
  auto& model = **loaded;
  std::printf("%s, %d threads\n", std::string(model.device()).c_str(), threads);
  for (const int rows : {1, 2, 4, 8, 16, 32, 64}) {
    print("decode", rows, context, measure(model, batch_of(rows, context, 1, blocks), steps));
  }
  for (const int tokens : {16, 64, 512, 1500}) {
    print("prefill", tokens, 0,
          measure(model, batch_of(1, 0, tokens, 32), std::max(3, steps / 20)));
  }
  return 0;
}
