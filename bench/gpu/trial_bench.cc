#include "bench/gpu/trial_bench.h"

#include <array>
#include <fstream>

#include "worker/device/devices.h"
#include "worker/kernel_startup.h"

namespace dsm::bench {
namespace {

using kernels::DType;

// The first GPU's, on which the trials are.
std::string device_name() {
  return std::string(
      device::make_backend({.device = device::Device::kCuda, .exact = false})->name());
}

void emit_steps(const model::TrialSeen& seen, const Measurement& of,
                const std::function<void(const Measurement&)>& emit) {
  for (const model::StepSeen& step : seen.steps) {
    for (const auto& [kernels, us] :
         {std::pair{"proven", step.proven_us}, {"tried", step.tried_us}}) {
      Measurement measured = of;
      measured.name += std::string(model::name_of(seen.kind)) + ", " + kernels;
      measured.rows = step.rows;
      measured.seconds = us * 1e-6;
      emit(measured);
    }
  }
}

}  // namespace

std::span<const TriedWay> tried_ways() {
  static const std::array ways{
      TriedWay{.name = "loose"},
      TriedWay{.name = "deterministic", .deterministic = true},
      TriedWay{.name = "weights in FP8", .fp8 = true},
      TriedWay{.name = "FP8", .fp8 = true, .fp8_activations = true},
      TriedWay{.name = "INT8", .round_weights = DType::kInt8},
      TriedWay{.name = "INT4", .round_weights = DType::kInt4},
  };
  return ways;
}

Status measure_trials(const ModelShape& shape, const TrialPlan& plan,
                      const std::filesystem::path& folder,
                      const std::function<void(const Measurement&)>& emit,
                      const std::function<void(const std::string&)>& say) {
  const std::string device = device_name();
  const std::string capability = device::gpu_capability(device::Device::kCuda);
  for (const TriedWay& way : tried_ways()) {
    const ModelShape kept = way.fp8 ? in_fp8(shape) : shape;
    if (!(std::ofstream(folder / "config.json") << kept.config).flush()) {
      return fail(ErrorKind::kExhausted, "cannot write " + (folder / "config.json").string());
    }
    auto config = model::load_model_config(folder);
    if (!config) return std::unexpected(config.error());
    worker::TrialSetting setting{.model = {.config = *std::move(config),
                                           .deterministic = way.deterministic,
                                           .fp8_activations = way.fp8_activations,
                                           .round_weights = way.round_weights,
                                           .max_batch_tokens = plan.prompt,
                                           .threads = plan.threads},
                                 .dir = folder,
                                 .capability = capability,
                                 .program = plan.program,
                                 .repeats = plan.repeats};
    const auto trials = model::plan_trials(setting.model, setting.capability);
    if (trials.empty()) continue;
    const worker::Tried tried = worker::try_in_child(setting, trials);
    for (const model::TrialSeen& seen : tried.seen) {
      emit_steps(
          seen,
          {.device = device, .model = shape.name, .name = "a few layers (" + way.name + "), "},
          emit);
    }
    const model::TrialsJudged judged = model::judge(tried.seen);
    say(shape.name + ", " + way.name + ": " + device::to_string(judged.kernels) + " (" +
        judged.text + ")");
    for (const std::string& warning : judged.warnings) say(warning);
    if (!tried.problem.empty()) say("stopped short: " + tried.problem);
  }
  return {};
}

}  // namespace dsm::bench
