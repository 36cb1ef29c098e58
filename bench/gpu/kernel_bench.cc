#include "bench/gpu/kernel_bench.h"

#include <random>
#include <utility>

#include "bench/gpu/cache_bench.h"
#include "bench/gpu/expanded_bench.h"
#include "bench/gpu/expert_bench.h"
#include "bench/gpu/product_bench.h"
#include "bench/gpu/setting.h"

namespace dsm::bench {
namespace {

using namespace kernels;  // parameter structs

// Of logits that are spread as a model's: few are likely.
void choices(Setting& on, int rows) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  std::vector<float> logits(size(std::int64_t{rows} * on.config.vocab_size));
  for (float& logit : logits) logit = normal(random);
  on.backend->write(on.y, logits.data(), logits.size() * sizeof(float));
  auto* tokens = device::allocate_shared<std::int32_t>(*on.backend, size(rows));
  const std::pair<const char*, Choice> kinds[] = {
      {"choice, highest", {.wanted = true}},
      {"choice, drawn", {.key = 1, .temperature = 0.6F, .wanted = true}},
      {"choice, drawn by top_p", {.key = 1, .temperature = 0.6F, .top_p = 0.95F, .wanted = true}}};
  for (const auto& [name, choice] : kinds) {
    const std::vector<Choice> of_rows(size(rows), choice);
    on.measure(name, rows, {4.0 * rows * on.config.vocab_size, 0}, [&] {
      on.backend->choose({.logits = on.y,
                          .ld = on.config.vocab_size,
                          .choices = of_rows.data(),
                          .rows = rows,
                          .vocab = on.config.vocab_size,
                          .tokens = tokens});
    });
  }
}

void small_operators(Setting& on, int rows) {
  const int width = on.config.hidden_size;
  const double bytes = 8.0 * rows * width;
  on.measure("norm", rows, {bytes, 0}, [&] {
    on.backend->rms_norm({.x = on.x,
                          .ldx = width,
                          .weight = on.ones,
                          .y = on.y,
                          .ldy = width,
                          .rows = rows,
                          .width = width,
                          .eps = 1e-6F});
  });
  on.measure("rounding to FP8", rows, {bytes, 0}, [&] {
    on.backend->quantise(
        {.x = on.x, .ldx = width, .y = on.y, .ldy = width, .rows = rows, .width = width});
  });
  const std::vector<std::int32_t> tokens(size(rows), 1);
  on.measure("embedding", rows, {6.0 * rows * width, 0}, [&] {
    on.backend->embedding({tokens.data(), on.x, DType::kBF16, on.y, rows, width});
  });
}

class Bench {
 public:
  Bench(const std::string& name, const model::ModelConfig& config, const KernelPlan& plan,
        const Setting::Emit& emit)
      : on_(name, config, plan, emit) {}

  void run() {
    for (const int rows : on_.plan.decode_rows) step(rows, 1, on_.plan.context);
    step(1, on_.plan.prompt, 0);
  }

 private:
  void step(int sequences, int tokens, int start) {
    const int rows = sequences * tokens;
    products_.layer(rows);
    if (tokens == 1) {
      products_.head(rows);
      choices(on_, rows);
    }
    products_.latents(rows);
    experts_.run(rows);
    small_operators(on_, rows);
    cache_.run(sequences, tokens, start);
    if (tokens > 1) expanded_.run(tokens);
  }

  Setting on_;
  CacheBench cache_{on_};
  ProductBench products_{on_};
  ExpertBench experts_{on_};
  ExpandedBench expanded_{on_};
};

}  // namespace

Status measure_kernels(const ModelShape& shape, const KernelPlan& plan,
                       const std::function<void(const Measurement&)>& emit) {
  const auto config = model::parse_model_config(shape.config, shape.name);
  if (!config) return std::unexpected(config.error());
  Bench(shape.name, *config, plan, emit).run();
  return {};
}

}  // namespace dsm::bench
