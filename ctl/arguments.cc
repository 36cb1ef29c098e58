#include "ctl/arguments.h"

#include <CLI/CLI.hpp>
#include <map>

#include "ctl/completion.h"

namespace dsm::ctl {
namespace {

constexpr const char* kFooter =
    "Installed as kubectl-dsm on the PATH it is `kubectl dsm`, too.\n"
    "Exit codes: 0 done, 1 the cluster refused or did not answer, 2 the command line is wrong,\n"
    "3 plan: the manifest cannot work as it is; fit: the model does not fit.";

// The commands and the values that CLI11 fills.
class CommandLine {
 public:
  CommandLine() {
    app_.require_subcommand(1);
    app_.footer(kFooter);
    add_connection(app_);
    add_status();
    add_plan();
    add_fit();
    add_logs();
    add_restart();
    add_rollback();
    add_pause();
    add_drain();
    add_sleep();
    add_bundle();
    add_version();
    add_completion();
  }

  Result<Arguments> parse(int argc, const char* const* argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      return Arguments{connection_, PrintCommand{app_.help()}};
    } catch (const CLI::ParseError& e) {
      const auto parsed = app_.get_subcommands();
      const std::string command = parsed.empty() ? "" : " " + parsed.front()->get_name();
      return fail(ErrorKind::kInvalid,
                  std::string(e.what()) + "; see dsmctl" + command + " --help");
    }
    return Arguments{connection_, chosen()};
  }

 private:
  // Accepted before and after the command's name.
  void add_connection(CLI::App& to) {
    to.add_option("-n,--namespace", connection_.ns, "Namespace; default: the context's");
    to.add_option("--context", connection_.context, "Context in the kubeconfig");
    to.add_option("--kubeconfig", connection_.kubeconfig,
                  "Kubeconfig file; default: $KUBECONFIG, then ~/.kube/config");
  }

  CLI::App* command(const std::string& name, const std::string& what) {
    CLI::App* sub = app_.add_subcommand(name, what);
    add_connection(*sub);
    return sub;
  }

  static void add_model(CLI::App* sub, std::string& model) {
    sub->add_option("MODEL", model, "Name of a DeepSeekModel")->required();
  }

  static void add_format(CLI::App* sub, bool& json) {
    sub->add_option_function<std::string>(
           "-o,--output", [&json](const std::string& format) { json = format == "json"; },
           "text (default) or json")
        ->check(CLI::IsMember({"text", "json"}));
  }

  void add_status() {
    status_app_ = command("status", "Models with their conditions, groups and pods as a tree");
    auto* model = status_app_->add_option("MODEL", status_.model, "One model; default: all");
    status_app_->add_flag("-A,--all-namespaces", status_.all_namespaces, "In all namespaces")
        ->excludes(model);
    status_app_->add_flag("-w,--watch", status_.watch, "Go on and show each change");
    add_format(status_app_, status_.json);
  }

  void add_plan() {
    plan_app_ = command("plan", "What would happen if a manifest was applied; changes nothing");
    plan_app_->add_option("-f,--filename", plan_.file, "Manifest; - is standard input")->required();
    plan_app_->add_option("--config", plan_.config,
                          "config.json of the models, where spec.sizing does not have it");
    plan_app_->add_flag("--offline", plan_.offline, "As if nothing was in the cluster");
    add_format(plan_app_, plan_.json);
  }

  void add_fit() {
    fit_app_ = app_.add_subcommand("fit", "Whether a model fits into memory, and what would help");
    fit_app_->add_option("--config", fit_.config, "The model's config.json; - is standard input")
        ->required();
    fit_app_->add_option("--memory", fit_.memory, "Of a pod, or of one accelerator, such as 80Gi")
        ->required();
    fit_app_
        ->add_option_function<std::string>(
            "--device", [this](const std::string& device) { fit_.gpu = device == "gpu"; },
            "cpu (default) or gpu")
        ->check(CLI::IsMember({"cpu", "gpu"}));
    fit_app_->add_option("--tensor", fit_.tensor, "Ranks of a group; default: 1, 2, 4 and 8")
        ->check(CLI::IsMember({1, 2, 4, 8}));
    add_size(fit_app_, "--ranks-per-pod", fit_.ranks_per_pod, 1, 8, "That share a pod's memory");
    add_size(fit_app_, "--context", fit_.context, 0L, 1L << 24,
             "Tokens of the longest request; 0: what the model allows");
    add_size(fit_app_, "--kv-cache-tokens", fit_.kv_cache_tokens, 0L, 1'000'000'000L,
             "Tokens that the cache shall hold; 0: at least one such request");
    fit_app_
        ->add_option("--kv-cache-dtype", fit_.kv_cache_dtype,
                     "What keys and values are kept in: fp32, bf16 or fp8")
        ->check(CLI::IsMember({"fp32", "bf16", "fp8"}))
        ->capture_default_str();
    add_size(fit_app_, "--max-num-batched-tokens", fit_.batched_tokens, 1, 1 << 20,
             "Tokens of one step");
    add_size(fit_app_, "--max-num-seqs", fit_.sequences, 1, 4096, "Requests in one step");
    fit_app_->add_flag("--drafts", fit_.drafts, "With the model's own prediction layer (Mtp)");
    auto* loose = fit_app_->add_flag("--loose", fit_.loose,
                                     "As with engine.deterministic: false; what GPUs do");
    fit_app_
        ->add_flag("--deterministic", fit_.deterministic,
                   "As with engine.deterministic: true; what CPUs do")
        ->excludes(loose);
    fit_app_->add_flag("--expert-parallel", fit_.expert_parallel,
                       "As with engine.expertParallel: true, which is loose");
    fit_app_->add_flag("--data-parallel-attention", fit_.data_parallel_attention,
                       "As with engine.dataParallelAttention: true");
    fit_app_
        ->add_option_function<std::string>(
            "--quantization",
            [this](const std::string& name) {
              fit_.weight_bits = name == "INT8" ? 8 : name == "INT4" ? 4 : 0;
            },
            "As model.quantization: Auto (default), INT8 or INT4")
        ->check(CLI::IsMember({"Auto", "INT8", "INT4"}));
    add_format(fit_app_, fit_.json);
  }

  template <typename Int>
  static void add_size(CLI::App* sub, const char* name, Int& value, Int least, Int most,
                       const char* what) {
    sub->add_option(name, value, what)->check(CLI::Range(least, most))->capture_default_str();
  }

  void add_logs() {
    logs_app_ = command("logs", "Logs of the pods, each line with its group and rank before it");
    add_model(logs_app_, logs_.model);
    logs_app_->add_option("-g,--group", logs_.group, "Only this group: its number or its name");
    logs_app_->add_option("-r,--rank", logs_.rank, "Only the pod that holds this rank")
        ->check(CLI::Range(0, 7));
    auto* follow = logs_app_->add_flag("--follow", logs_.follow, "Go on until the pods end");
    logs_app_
        ->add_flag("-p,--previous", logs_.previous, "Of the containers before their last restart")
        ->excludes(follow);
    logs_app_->add_option("--tail", logs_.tail, "Last lines of each pod; -1: all")
        ->check(CLI::Range(-1L, 1'000'000L))
        ->capture_default_str();
  }

  void add_restart() {
    restart_app_ = command("restart", "Roll all groups, one after the other, without a change");
    add_model(restart_app_, restart_.model);
  }

  void add_rollback() {
    rollback_app_ = command("rollback", "Go back to a revision that is kept");
    add_model(rollback_app_, rollback_.model);
    auto* to = rollback_app_->add_option(
        "--to", rollback_.to,
        "Revision; default: the last one that was rolled out whole, or the one before it");
    auto* list =
        rollback_app_->add_flag("--list", rollback_.list, "Show the revisions and change nothing")
            ->excludes(to);
    auto* dry_run = rollback_app_->add_flag("--dry-run", rollback_.dry_run,
                                            "Show the change and do not make it");
    auto* keep = rollback_app_
                     ->add_flag("--keep-spec", rollback_.keep_spec,
                                "Have the operator go back while the spec stays as it is in git")
                     ->excludes(to)
                     ->excludes(list)
                     ->excludes(dry_run);
    rollback_app_->add_flag("--undo", rollback_.undo, "Take --keep-spec back")
        ->excludes(to)
        ->excludes(list)
        ->excludes(dry_run)
        ->excludes(keep);
  }

  void add_drain() {
    drain_app_ =
        command("drain", "Move a group, or all groups of a node, without a failed request");
    auto* model = drain_app_->add_option("MODEL", drain_.model, "Name of a DeepSeekModel");
    auto* group =
        drain_app_->add_option("GROUP", drain_.group, "A group of it: its number or its name");
    model->needs(group);
    auto* node =
        drain_app_
            ->add_option("--node", drain_.node,
                         "Cordon this node and wait until the groups of all models left it")
            ->excludes(model);
    drain_app_->add_flag("--cancel", drain_.cancel, "Take it back: what has not gone yet stays");
    drain_app_->add_flag("--wait", drain_.wait,
                         "Wait until the group is gone, and say how far it is");
    drain_app_
        ->add_option("--timeout", drain_.timeout_s,
                     "How long to wait, such as 300s or 10m; default: as long as it takes")
        ->transform(
            CLI::AsNumberWithUnit(std::map<std::string, int>{{"s", 1}, {"m", 60}, {"h", 3600}}))
        ->check(CLI::Range(0, 7 * 24 * 3600));
    drain_app_->callback([this, group, node] {
      if (group->count() == 0 && node->count() == 0) {
        throw CLI::RequiredError("MODEL GROUP, or --node NODE,");
      }
      drain_.wait = drain_.wait || drain_.timeout_s > 0;
    });
  }

  void add_pause() {
    pause_app_ = command("pause", "Stop a rolling change where it is");
    add_model(pause_app_, pause_.model);
    resume_app_ = command("resume", "Continue a rolling change");
    add_model(resume_app_, resume_.model);
  }

  void add_sleep() {
    sleep_app_ = command("sleep", "Let groups give their devices' memory back, and keep the pods");
    add_model(sleep_app_, sleep_.model);
    wake_app_ = command("wake", "Wake groups that sleep");
    add_model(wake_app_, wake_.model);
  }

  void add_bundle() {
    bundle_app_ = command("support-bundle", "Objects, events, logs and versions in one archive");
    add_model(bundle_app_, bundle_.model);
    bundle_app_->add_option("-o,--output", bundle_.file, "The archive, FILE.tar.gz")->required();
    bundle_app_
        ->add_option("--operator-namespace", bundle_.operator_namespace, "Where the operator runs")
        ->capture_default_str();
  }

  void add_version() {
    version_app_ = command("version", "Versions of dsmctl and of the cluster");
    version_app_->add_flag("--client", version_.client, "Of dsmctl alone");
  }

  void add_completion() {
    completion_app_ = app_.add_subcommand("completion", "Completion for bash; source its output");
    completion_app_->add_option("SHELL", shell_, "bash")
        ->required()
        ->check(CLI::IsMember({"bash"}));
  }

  Command chosen() const {
    const CLI::App* sub = app_.get_subcommands().front();
    if (sub == status_app_) return status_;
    if (sub == plan_app_) return plan_;
    if (sub == fit_app_) return fit_;
    if (sub == logs_app_) return logs_;
    if (sub == restart_app_) return restart_;
    if (sub == rollback_app_) return rollback_;
    if (sub == pause_app_) return pause_;
    if (sub == resume_app_) return resume_;
    if (sub == drain_app_) return drain_;
    if (sub == sleep_app_) return sleep_;
    if (sub == wake_app_) return wake_;
    if (sub == bundle_app_) return bundle_;
    if (sub == version_app_) return version_;
    return PrintCommand{bash_completion(words())};
  }

  // Each command with the long names of its options.
  std::vector<CompletedCommand> words() const {
    std::vector<CompletedCommand> out;
    for (const CLI::App* sub : app_.get_subcommands([](const CLI::App*) { return true; })) {
      CompletedCommand command{sub->get_name(), {}};
      for (const CLI::Option* option : sub->get_options()) {
        for (const std::string& name : option->get_lnames()) command.options.push_back("--" + name);
      }
      out.push_back(std::move(command));
    }
    return out;
  }

  CLI::App app_{"Looks after DeepSeekModels in a Kubernetes cluster.", "dsmctl"};
  Connection connection_;
  StatusCommand status_;
  PlanCommand plan_;
  FitCommand fit_;
  LogsCommand logs_;
  RestartCommand restart_;
  RollbackCommand rollback_;
  PauseCommand pause_;
  PauseCommand resume_{.model = "", .paused = false};
  DrainCommand drain_;
  SleepCommand sleep_;
  SleepCommand wake_{.model = "", .sleep = false};
  BundleCommand bundle_;
  VersionCommand version_;
  std::string shell_;
  CLI::App* status_app_ = nullptr;
  CLI::App* plan_app_ = nullptr;
  CLI::App* fit_app_ = nullptr;
  CLI::App* logs_app_ = nullptr;
  CLI::App* restart_app_ = nullptr;
  CLI::App* rollback_app_ = nullptr;
  CLI::App* pause_app_ = nullptr;
  CLI::App* resume_app_ = nullptr;
  CLI::App* drain_app_ = nullptr;
  CLI::App* sleep_app_ = nullptr;
  CLI::App* wake_app_ = nullptr;
  CLI::App* bundle_app_ = nullptr;
  CLI::App* version_app_ = nullptr;
  CLI::App* completion_app_ = nullptr;
};

}  // namespace

Result<Arguments> parse_arguments(int argc, const char* const* argv) {
  return CommandLine().parse(argc, argv);
}

}  // namespace dsm::ctl
