// Time of RankModel::forward on the default model or another one, without scheduler or server, in
// the deterministic mode and in the loose one, a step of each in turn:
//   build/release/model-bench [threads] [context] [steps] [folder] [int8|int4]
// Prints decode steps at several batch sizes and prefill of a prompt.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "tests/model/bench_model.h"

namespace {

using namespace dsm;
using Clock = std::chrono::steady_clock;

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

struct Mode {
  std::unique_ptr<model::RankModel> model;
  std::vector<double> times = {};
  double cpu = 0;

  void step(const engine::Batch& batch) {
    model::Alone comm;
    const auto begin = Clock::now();
    const double cpu_begin = thread_seconds();
    model->forward(batch, comm);
    cpu += thread_seconds() - cpu_begin;
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  Times take() {
    std::sort(times.begin(), times.end());
    const Times t{times.front(), times[times.size() / 2], cpu / static_cast<double>(times.size())};
    times.clear();
    cpu = 0;
    return t;
  }
};

void print(const char* mode, int tokens, const Times& t) {
  std::printf("  %-13s best %9.1f us %7.0f tok/s, median %9.1f us, cpu %9.1f us %7.0f tok/s\n",
              mode, t.best * 1e6, tokens / t.best, t.median * 1e6, t.cpu * 1e6, tokens / t.cpu);
}

void compare(Mode& deterministic, Mode& loose, const char* what, int context,
             const engine::Batch& batch, int steps) {
  for (Mode* mode : {&deterministic, &loose}) {
    mode->step(batch);
    mode->take();
  }
  for (int i = 0; i < steps; ++i) {
    deterministic.step(batch);
    loose.step(batch);
  }
  const Times a = deterministic.take();
  const Times b = loose.take();
  // All rows are alike.
  const auto tokens = static_cast<int>(batch.rows.size() * batch.rows[0].tokens.size());
  std::printf("%s %d tokens at %d: loose is %.2f times as fast (best), %.2f (median)\n", what,
              tokens, context, a.best / b.best, a.median / b.median);
  print("deterministic", tokens, a);
  print("loose", tokens, b);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int context = argc > 2 ? std::atoi(argv[2]) : 128;
  const int steps = argc > 3 ? std::atoi(argv[3]) : 200;
  const char* const folder = argc > 4 ? argv[4] : model::kBenchModel;
  model::RankSpec spec{.threads = threads};
  if (argc > 5) {
    const bool four = std::string(argv[5]) == "int4";
    spec.round_weights = four ? kernels::DType::kInt4 : kernels::DType::kInt8;
  }
  const int blocks = context / engine::kBlockTokens + 1;
  const int num_blocks = 64 * blocks + 32;
  Mode deterministic{model::load_bench_model(spec, num_blocks, folder)};
  spec.deterministic = false;
  spec.bf16 = kernels::bf16_ops();
  Mode loose{model::load_bench_model(spec, num_blocks, folder)};
  std::printf("%s, loose %s, %d threads\n", std::string(deterministic.model->device()).c_str(),
              std::string(loose.model->device()).c_str(), threads);
  for (const int rows : {1, 2, 4, 8, 16, 32, 64}) {
    compare(deterministic, loose, "decode", context, batch_of(rows, context, 1, blocks), steps);
  }
  for (const int tokens : {16, 64, 512, 1500}) {
    compare(deterministic, loose, "prefill", 0, batch_of(1, 0, tokens, 32),
            std::max(3, steps / 20));
  }
  return 0;
}
