#include "worker/kernel_startup.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <utility>

#include "base/result.h"

namespace dsm::worker {
namespace {

using model::Trial;
using model::TrialKind;

std::vector<Trial> trials_of(const KernelWish& wish, const TrialSetting& setting) {
  auto trials = model::plan_trials(setting.model, setting.capability);
  if (wish.megakernel) {
    std::erase_if(trials, [](const Trial& t) { return t.kind == TrialKind::kMegakernel; });
  }
  return trials;
}

}  // namespace

Tried try_in_child(const TrialSetting& setting, const std::vector<Trial>& trials) {
  std::vector<std::string> arguments = setting.program;
  arguments.push_back(model::text_of({setting.model, trials, setting.repeats}, setting.dir));
  const ChildEnd end = run_child(arguments, setting.limits, setting.given_up);
  const auto told = model::read_trials(end.output, trials);
  // Whoever writes nonsense may have written it before, too.
  if (!told) return {{}, "the process that tries " + told.error().message};
  Tried tried{told->seen, end.problem};
  if (!told->failure.empty()) tried.problem = told->failure;
  if (tried.problem.empty() && !told->ended) tried.problem = "ended before it was through";
  if (const auto kind = told->under_way; kind && !tried.problem.empty()) {
    tried.problem += ", while it tried " + std::string(name_of(*kind));
  }
  return tried;
}

device::KernelChoice choose_kernels(const KernelWish& wish, const TrialSetting& setting,
                                    const Logger& log) {
  device::KernelChoice kernels;
  const auto trials = trials_of(wish, setting);
  std::string why = "nothing to try";
  if (!wish.measured) {
    kernels = device::proven_kernels();
    why = "--kernels proven";
  } else if (!trials.empty() && !setting.whole_group) {
    // Each process would choose for itself, and what all ranks compute alike would differ.
    why = "not tried: the group has several processes";
  } else if (!trials.empty()) {
    const Tried tried = try_in_child(setting, trials);
    const model::TrialsJudged judged = model::judge(tried.seen);
    kernels = judged.kernels;
    why = "measured: " + (judged.text.empty() ? std::string("nothing") : judged.text);
    if (!tried.problem.empty()) {
      log.info("trials of kernels have stopped short, what they have not seen is not used",
               {{"warning", tried.problem}});
    }
    for (const std::string& warning : judged.warnings) {
      log.info("a kernel is wrong on this GPU and is not used", {{"warning", warning}});
    }
  }
  if (wish.megakernel) {
    kernels.megakernel_tokens = *wish.megakernel ? device::all_kernels().megakernel_tokens : 0;
  }
  log.info("which kernels", {{"kernels", to_string(kernels)}, {"why", why}});
  return kernels;
}

void tell_kernels(const device::KernelChoice& kernels, MetricsRegistry& registry) {
  prometheus::BuildGauge()
      .Name("dsm_gpu_kernels_info")
      .Help("Kernels that the ranks' GPUs compute with, as labels")
      .Register(registry)
      .Add({{"wide_integers_from", std::to_string(kernels.wide_integers_from)},
            {"wide_fp8_from", std::to_string(kernels.wide_fp8_from)},
            {"paired_fp8", kernels.paired_fp8 ? "true" : "false"},
            {"wide_exact_from", std::to_string(kernels.wide_exact_from)},
            {"megakernel_tokens", std::to_string(kernels.megakernel_tokens)}})
      .Set(1);
}

int try_kernels(std::string_view text) {
  // Nobody would end it if its parent were gone.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const auto say = [](const std::string& line) {
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  };
  try {
    const auto asked = model::read_asked(text);
    const Status done = asked ? model::run_trials(*asked, say) : std::unexpected(asked.error());
    if (done) return 0;
    say(model::line_of_failure(done.error().message));
  } catch (const std::exception& error) {
    say(model::line_of_failure(error.what()));
  }
  return 1;
}

}  // namespace dsm::worker
