#include "bench/gpu/model_bench.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <string>

#include "bench/gpu/device_clock.h"
#include "bench/gpu/work.h"
#include "tests/model/bench_model.h"

namespace dsm::bench {
namespace {

using kernels::DType;

constexpr int kWarmUp = 2;

// `rows` sequences with blocks of their own, for each of which a token is chosen.
engine::Batch batch_of(int rows, int tokens, int start, const engine::SamplingParams& sampling) {
  const int blocks = (start + tokens + engine::kBlockTokens - 1) / engine::kBlockTokens;
  engine::Batch batch{1, {}};
  for (int r = 0; r < rows; ++r) {
    engine::Row row;
    row.start = start;
    row.logits = row.choices = 1;
    row.sampling = sampling;
    for (int i = 0; i < tokens; ++i) row.tokens.push_back(1 + (r * 131 + i * 17) % 100);
    for (int b = 0; b < blocks; ++b) row.block_table.push_back(r * blocks + b);
    batch.rows.push_back(std::move(row));
  }
  return batch;
}

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

double median(std::vector<double>& values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::string mode_of(const ModelPlan& plan) {
  if (plan.fp8) return plan.deterministic ? " (FP8)" : " (loose, FP8)";
  if (plan.megakernel) return " (loose, megakernel)";
  if (plan.wide_exact) return " (many rows' kernel)";
  return plan.deterministic ? "" : " (loose)";
}

struct StepTime {
  double seconds;
  double host_seconds;
};

StepTime time_steps(const std::function<void()>& step, int steps) {
  for (int i = 0; i < kWarmUp; ++i) step();
  std::vector<double> times;
  std::vector<double> host;
  for (int i = 0; i < steps; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    step();
    times.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  sleep_while_waiting(true);
  for (int i = 0; i < steps; ++i) {
    const double begin = thread_seconds();
    step();
    host.push_back(thread_seconds() - begin);
  }
  sleep_while_waiting(false);
  return {median(times), median(host)};
}

}  // namespace

Status measure_model(const ModelShape& shape, const ModelPlan& plan,
                     const std::filesystem::path& folder,
                     const std::function<void(const Measurement&)>& emit) {
  auto written = write_checkpoint(plan.fp8 ? in_fp8(shape) : shape, folder);
  if (!written) return written;
  const auto config = model::load_model_config(folder);
  if (!config) return std::unexpected(config.error());
  const int most = *std::ranges::max_element(plan.decode_rows);
  const int blocks = std::max(most * (plan.context / engine::kBlockTokens + 1),
                              plan.prompt / engine::kBlockTokens + 1);
  auto model =
      model::RankModel::load(folder, *config,
                             {.device = device::Device::kCuda,
                              .kernels = {.wide_exact_from = plan.wide_exact ? 1 : 0,
                                          .megakernel_tokens = plan.megakernel ? 16 : 0},
                              .threads = plan.threads,
                              .deterministic = plan.deterministic,
                              .fp8_activations = plan.fp8},
                             {.num_blocks = blocks, .dtype = plan.fp8 ? DType::kBF16 : DType::kF32},
                             std::max(most, plan.prompt), {});
  if (!model) return std::unexpected(model.error());
  model::Alone comm;
  const Storage kept = {.fp8 = plan.fp8, .cache_bytes = plan.fp8 ? 2.0 : 4.0};
  const auto measure = [&](const std::string& name, int rows, int tokens, int start,
                           const engine::SamplingParams& sampling, bool on_host = false) {
    const engine::Batch batch = batch_of(rows, tokens, start, sampling);
    const StepTime time = time_steps(
        [&] {
          if (on_host) {
            (*model)->forward(batch, comm);
          } else {
            (*model)->choose(batch, comm);
          }
        },
        plan.steps);
    emit({.device = std::string((*model)->device()),
          .model = shape.name,
          .name = name + mode_of(plan),
          .rows = rows * tokens,
          .seconds = time.seconds,
          .work = step_work(*config, rows, tokens, start, kept),
          .host_seconds = time.host_seconds});
  };
  // As R1's models are asked for.
  const engine::SamplingParams drawn = {.temperature = 0.6F, .top_p = 0.95F};
  for (const int rows : plan.decode_rows) {
    measure("decode", rows, 1, plan.context, {});
    measure("decode, drawn", rows, 1, plan.context, drawn);
    measure("decode, logits to the host", rows, 1, plan.context, {}, true);
  }
  measure("prefill", 1, plan.prompt, 0, {});
  return {};
}

}  // namespace dsm::bench
