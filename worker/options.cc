#include "worker/options.h"

#include <filesystem>
#include <sstream>

#include "base/flags.h"

namespace dsm::worker {
namespace {

constexpr int kMany = 1 << 30;  // the bound of what has none

// `modules` is the text of --lora-modules.
void declare(Flags& flags, Options& o, std::string& modules) {
  flags.add("model", &o.model,
            "Directory of the model (config.json, *.safetensors, tokenizer.json)");
  flags.add("served-name", &o.served_name,
            "Name of the model in the API; empty: the directory's name");
  flags.add("host", &o.host, "Address to listen on");
  flags.add("port", &o.port, "Port of the public API, health and metrics; 0: any free one");
  flags.add("internal-port", &o.internal_port, "Port of the status stream and drain");
  flags.add("internal-token-file", &o.internal_token_file,
            "File with the bearer token of the internal port; empty: no internal port");
  flags.add("await-keys", &o.await_keys,
            "Answer nobody until the API keys were told over the internal port");
  flags.add("grpc-port", &o.grpc_port, "Port of the simple API over gRPC; 0: none");
  flags.add("tensor-parallel", &o.tensor_parallel, "Ranks that hold the model between them");
  flags.add("ranks-per-pod", &o.ranks_per_pod,
            "Ranks of one process; 0: all of them, or one with --leader-host");
  flags.add("pod-index", &o.pod_index, "Which process of the group this is; 0 is the leader");
  flags.add("leader-host", &o.leader_host,
            "Where the group's leader is; empty: all ranks run in this process");
  flags.add("advertise-host", &o.advertise_host, "Where the other processes reach this one");
  flags.add("control-port", &o.control_port, "Port on which the leader meets the others");
  flags.add("max-model-len", &o.max_model_len,
            "Tokens of prompt and answer together; 0: what the model allows");
  flags.add("max-num-seqs", &o.max_num_seqs, "Sequences in one step");
  flags.add("max-num-batched-tokens", &o.max_num_batched_tokens, "Tokens in one step");
  flags.add("kv-cache-tokens", &o.kv_cache_tokens,
            "Tokens that the KV cache holds, of all ranks together; 0: what --kv-cache-fraction "
            "says on a GPU, on a CPU every "
            "sequence's full context, within the memory limit or else 1 GiB");
  flags.add("kv-cache-fraction", &o.kv_cache_fraction,
            "Part of a GPU's memory that the KV cache takes of what weights and steps leave");
  flags.add("kv-cache-dtype", &o.kv_cache_dtype,
            "What keys and values are kept in: fp32, bf16 or fp8 (a scale for each 128 values). "
            "Half or about a quarter of fp32's memory, and other answers");
  flags.add("prefix-caching", &o.prefix_caching, "Keep the KV cache of prompts for later requests");
  flags.add("max-waiting", &o.max_waiting,
            "Requests that may wait for a place; more are refused with 429 and Retry-After");
  flags.add("max-waiting-tokens", &o.max_waiting_tokens,
            "Prompt tokens that may wait, of all requests together; 0: no limit");
  flags.add(
      "unread-bytes", &o.unread_bytes,
      "Bytes of a stream that its client may leave unread; beyond it the request is ended and "
      "the connection closed");
  flags.add("speculative-method", &o.speculative_method,
            "Where guesses at the next tokens come from: none, ngram (what followed before in the "
            "same text) or mtp (the model's own layer). They change the speed, never the tokens");
  flags.add("speculative-tokens", &o.speculative_tokens,
            "Guesses after each token, 1 to 16; 0 without a method");
  flags.add(
      "deterministic", &o.deterministic, "true on a CPU, false on a GPU",
      "The same tokens whatever else is in the batch and, on a CPU, whatever the number of ranks; "
      "false is quicker, on a GPU several times with long prompts");
  flags.add("expert-parallel", &o.expert_parallel,
            "Each rank computes its share of a layer's experts, not a part of each; with "
            "--deterministic false");
  flags.add("data-parallel-attention", &o.data_parallel_attention,
            "Each rank has attention whole, and a KV cache for sequences of its own: as many times "
            "the tokens as there are ranks; for DeepSeek's latent attention");
  flags.add("activation-quantization", &o.activation_quantization,
            "What an FP8 checkpoint's products take: none (activations as they are) or fp8 "
            "(rounded to FP8 in blocks of 128, as GPUs compute)");
  flags.add(
      "weight-quantization", &o.weight_quantization,
      "Weights of attention and MLPs: auto (as the checkpoint has them), int8 or int4 (rounded "
      "when they are loaded, a scale for each 128 inputs, unless they are already, and embedding "
      "and head to int8); none or fp8: as auto, but the checkpoint must be unquantised, or in FP8");
  flags.add("device", &o.device,
            "What computes: cpu, cuda (a GPU, in a program built with it) or auto (a GPU where "
            "there is one that can be used)");
  flags.add(
      "device-check", &o.device_check,
      "Whether a GPU is asked for its memory, its speed and a product before it gets weights: "
      "off, quick (up to 2 GiB of its memory) or full (nearly all that is free)");
  flags.add("all-reduce", &o.all_reduce,
            "What adds up the ranks' parts of sums on GPUs: nccl, peer (own kernels, for ranks of "
            "one pod whose GPUs reach each other's memory) or auto (for each size the quicker, "
            "measured when the ranks meet)");
  flags.add("sleep-mode", &o.sleep_mode,
            "Map a GPU's memory, so that the group can sleep and leave it to others; on a CPU it "
            "can without");
  flags.add("kernels", &o.kernels,
            "On a GPU, where there are several kernels for the same: measured (tried at the start, "
            "on this GPU with a few layers of the model's shape, which takes some seconds) or "
            "proven (those that GPUs have been measured with)");
  flags.add("megakernel", &o.megakernel, "as --kernels says",
            "On a GPU, steps of decoding of up to 16 tokens as one kernel, as far as it has their "
            "operators, which changes no bit; true or false without trying it");
  flags.add("threads", &o.threads, "Threads of all ranks of this process; 0: the cgroup's cores");
  flags.add("lora-modules", &modules,
            "LoRA adapters from the start, by the names under which requests choose them: "
            "name=folder,name=folder");
  flags.add("lora-dir", &o.lora_dir,
            "Folder below which clients may load adapters with POST /v1/load_lora_adapter; empty: "
            "they may not. The processes of a group must all find it there");
  flags.add("max-loras", &o.max_loras, "Adapters in memory at a time");
  flags.add("max-lora-rank", &o.max_lora_rank, "Highest rank of an adapter");
  flags.add(
      "chat-template", &o.chat_template,
      "a built-in chat template by its name, whatever the checkpoint has (worker/text/README.md "
      "lists them)");
  flags.add("reasoning-alias", &o.reasoning_alias,
            "Answer chats with the thought as 'reasoning' beside 'reasoning_content'");
  flags.add("drain-timeout", &o.drain_timeout_s,
            "Seconds that running requests get to finish on SIGTERM");
  flags.add(
      "drain-unready", &o.drain_unready_s,
      "Seconds after SIGTERM in which new requests are still accepted; each that comes begins "
      "them anew, up to half of --drain-timeout later");
  flags.add("log-level", &o.log_level, "info or debug");
  flags.add("log-format", &o.log_format, "text or json");
  flags.add("model-name", &o.model_name, "Identity for the status stream: the DeepSeekModel");
  flags.add("namespace", &o.ns, "Identity: its namespace");
  flags.add("group", &o.group, "Identity: the group");
  flags.add("revision", &o.revision, "Identity: the revision");
  flags.add("pod-name", &o.pod_name, "Identity: the pod");
  flags.add("version", &o.version, "Print the version and exit");
}

Status wrong(const std::string& flag, const std::string& what) {
  return fail(ErrorKind::kInvalid, "--" + flag + " " + what);
}

Status in_range(const std::string& flag, int value, int low, int high) {
  if (value >= low && value <= high) return {};
  return wrong(flag, "is " + std::to_string(value) + ", expected " + std::to_string(low) + " to " +
                         std::to_string(high));
}

Status check_numbers(const Options& o) {
  struct Bound {
    const char* flag;
    int value;
    int low;
    int high;
  };
  for (const Bound& b :
       {Bound{"port", o.port, 0, 65535}, Bound{"internal-port", o.internal_port, 0, 65535},
        Bound{"grpc-port", o.grpc_port, 0, 65535}, Bound{"control-port", o.control_port, 0, 65535},
        Bound{"tensor-parallel", o.tensor_parallel, 1, 64},
        Bound{"ranks-per-pod", o.ranks_per_pod, 1, o.tensor_parallel},
        Bound{"max-model-len", o.max_model_len, 0, kMany},
        Bound{"max-num-seqs", o.max_num_seqs, 1, 4096},
        Bound{"max-num-batched-tokens", o.max_num_batched_tokens, 1, 1 << 20},
        Bound{"max-waiting", o.max_waiting, 1, 1 << 20},
        Bound{"max-waiting-tokens", o.max_waiting_tokens, 0, kMany},
        Bound{"unread-bytes", o.unread_bytes, 1, kMany},
        Bound{"kv-cache-tokens", o.kv_cache_tokens, 0, kMany}, Bound{"threads", o.threads, 0, 1024},
        Bound{"max-loras", o.max_loras, 1, 1024}, Bound{"max-lora-rank", o.max_lora_rank, 1, 512},
        Bound{"drain-timeout", o.drain_timeout_s, 0, 24 * 3600},
        Bound{"drain-unready", o.drain_unready_s, 0, 3600}}) {
    if (auto checked = in_range(b.flag, b.value, b.low, b.high); !checked) return checked;
  }
  return {};
}

Status check_speculation(const Options& o) {
  const std::string& method = o.speculative_method;
  const int tokens = o.speculative_tokens;
  if (method == "none") {
    if (tokens == 0) return {};
    return wrong("speculative-tokens",
                 "is " + std::to_string(tokens) + ", expected 0 without a --speculative-method");
  }
  if (method != "ngram" && method != "mtp") {
    return wrong("speculative-method", "is '" + method + "', expected none, ngram or mtp");
  }
  return in_range("speculative-tokens", tokens, 1, kMaxSpeculativeTokens);
}

Status check_fraction(double fraction) {
  constexpr double kMost = 0.98;  // a GPU hands memory out in units, whose rests are lost
  if (fraction > 0 && fraction <= kMost) return {};
  return wrong("kv-cache-fraction",
               "is " + std::to_string(fraction) + ", expected more than 0 and at most 0.98");
}

Status read_modules(const std::string& text, Options& o) {
  std::istringstream all(text);
  for (std::string one; std::getline(all, one, ',');) {
    const auto equals = one.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == one.size()) {
      return wrong("lora-modules", "has '" + one + "', expected name=folder");
    }
    o.adapters.emplace_back(one.substr(0, equals), one.substr(equals + 1));
  }
  return {};
}

Status check_quantization(const Options& o) {
  if (o.activation_quantization != "none" && o.activation_quantization != "fp8") {
    return wrong("activation-quantization",
                 "is '" + o.activation_quantization + "', expected none or fp8");
  }
  if (o.fp8_activations() && o.has_adapters()) {
    return wrong("activation-quantization",
                 "is fp8, which has no meaning for adapters yet: leave it out, or --lora-modules "
                 "and --lora-dir");
  }
  const std::string& weights = o.weight_quantization;
  if (weights != "auto" && weights != "none" && weights != "fp8" && !o.rounds_weights()) {
    return wrong("weight-quantization",
                 "is '" + weights + "', expected auto, none, fp8, int8 or int4");
  }
  if (o.fp8_activations() && o.rounds_weights()) {
    return wrong("weight-quantization",
                 "is " + weights +
                     ", but --activation-quantization fp8 is for weights in FP8: "
                     "leave one of them out");
  }
  return {};
}

Status check_adapters(const Options& o) {
  if (o.adapters.size() > static_cast<std::size_t>(o.max_loras)) {
    return wrong("lora-modules", "names " + std::to_string(o.adapters.size()) +
                                     " adapters, more than --max-loras " +
                                     std::to_string(o.max_loras));
  }
  return {};
}

Status check(const Options& o) {
  if (o.model.empty()) return wrong("model", "is missing: the directory of the model");
  if (auto numbers = check_numbers(o); !numbers) return numbers;
  if (o.tensor_parallel % o.ranks_per_pod != 0) {
    return wrong("ranks-per-pod", "is " + std::to_string(o.ranks_per_pod) +
                                      ", which does not divide --tensor-parallel " +
                                      std::to_string(o.tensor_parallel));
  }
  const int pods = o.tensor_parallel / o.ranks_per_pod;
  if (auto index = in_range("pod-index", o.pod_index, 0, pods - 1); !index) return index;
  if (!o.is_distributed() && pods > 1) {
    return wrong("leader-host", "is missing: the group has " + std::to_string(pods) + " processes");
  }
  if (pods > 1 && o.internal_token_file.empty()) {
    return wrong("internal-token-file",
                 "is missing: the processes of a group know each other by it");
  }
  if (o.await_keys && o.internal_token_file.empty()) {
    return wrong("await-keys", "is true without --internal-token-file: nobody could tell the keys");
  }
  if (auto speculation = check_speculation(o); !speculation) return speculation;
  if (o.kv_cache_dtype != "fp32" && o.kv_cache_dtype != "bf16" && o.kv_cache_dtype != "fp8") {
    return wrong("kv-cache-dtype", "is '" + o.kv_cache_dtype + "', expected fp32, bf16 or fp8");
  }
  if (auto fraction = check_fraction(o.kv_cache_fraction); !fraction) return fraction;
  if (o.device != "auto" && o.device != "cpu" && o.device != "cuda") {
    return wrong("device", "is '" + o.device + "', expected auto, cpu or cuda");
  }
  if (o.device_check != "off" && o.device_check != "quick" && o.device_check != "full") {
    return wrong("device-check", "is '" + o.device_check + "', expected off, quick or full");
  }
  if (o.all_reduce != "auto" && o.all_reduce != "nccl" && o.all_reduce != "peer") {
    return wrong("all-reduce", "is '" + o.all_reduce + "', expected auto, nccl or peer");
  }
  if (o.kernels != "measured" && o.kernels != "proven") {
    return wrong("kernels", "is '" + o.kernels + "', expected measured or proven");
  }
  if (auto quantization = check_quantization(o); !quantization) return quantization;
  if (auto adapters = check_adapters(o); !adapters) return adapters;
  if (o.log_level != "info" && o.log_level != "debug") {
    return wrong("log-level", "is '" + o.log_level + "', expected info or debug");
  }
  if (o.log_format != "text" && o.log_format != "json") {
    return wrong("log-format", "is '" + o.log_format + "', expected text or json");
  }
  return {};
}

}  // namespace

Logger Options::logger() const {
  return Logger::to_stderr(log_level == "debug" ? LogLevel::kDebug : LogLevel::kInfo,
                           log_format == "json" ? LogFormat::kJson : LogFormat::kText);
}

Result<Options> parse_options(int argc, const char* const* argv) {
  Options options;
  Flags flags("deepseek-worker", "Serves a DeepSeek model over the OpenAI API.");
  std::string modules;
  declare(flags, options, modules);
  if (auto parsed = flags.parse(argc, argv); !parsed) return std::unexpected(parsed.error());
  if (options.version) return options;
  if (options.ranks_per_pod == 0) {
    options.ranks_per_pod = options.is_distributed() ? 1 : options.tensor_parallel;
  }
  if (auto read = read_modules(modules, options); !read) return std::unexpected(read.error());
  if (auto checked = check(options); !checked) return std::unexpected(checked.error());
  if (options.served_name.empty()) {
    // "models/tiny/" and "models/tiny" have the same name.
    const auto path = std::filesystem::path(options.model).lexically_normal();
    options.served_name = (path.has_filename() ? path : path.parent_path()).filename().string();
  }
  return options;
}

}  // namespace dsm::worker
