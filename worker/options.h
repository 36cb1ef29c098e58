// The worker's command line, read once into one struct. Nothing else configures the worker: no
// environment, no file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/result.h"

namespace dsm::worker {

inline constexpr int kMaxSpeculativeTokens = 16;

struct Options {
  std::string model;        // directory with config.json, *.safetensors, tokenizer.json
  std::string served_name;  // default: the directory's name

  std::string host = "0.0.0.0";
  int port = 8000;
  int internal_port = 8001;
  std::string internal_token_file;
  int grpc_port = 0;  // 0: none
  bool await_keys = false;

  int tensor_parallel = 1;
  int ranks_per_pod = 0;  // 0: all ranks without a leader host, one with it
  int pod_index = 0;
  std::string leader_host;  // empty: all ranks are threads of this process
  std::string advertise_host;
  int control_port = 8002;

  int max_model_len = 0;  // 0: what the model allows
  int max_num_seqs = 16;
  int max_num_batched_tokens = 512;
  // 0: on a CPU max_num_seqs full contexts, as far as memory allows (kv_size.h); on a GPU
  // kv_cache_fraction of what weights and steps leave of its memory (model/kv_room.h).
  int kv_cache_tokens = 0;
  double kv_cache_fraction = 0.9;
  std::string kv_cache_dtype = "fp32";
  bool prefix_caching = true;
  int max_waiting = 1024;
  int max_waiting_tokens = 0;  // 0: no limit
  std::string speculative_method = "none";
  int speculative_tokens = 0;
  std::optional<bool> deterministic;  // absent: on a CPU; settled in prepare()
  bool expert_parallel = false;
  bool data_parallel_attention = false;
  std::string activation_quantization = "none";
  std::string weight_quantization = "auto";
  std::string device = "auto";
  std::string device_check = "quick";
  std::string all_reduce = "auto";
  bool sleep_mode = false;
  std::string kernels = "measured";
  std::optional<bool> megakernel;  // absent: as --kernels says
  int threads = 0;                 // 0: the cgroup's cores, shared by this process's ranks

  // Adapters from the start as (name, folder); --lora-modules is name=path,name=path.
  std::vector<std::pair<std::string, std::string>> adapters;
  std::string lora_dir;  // clients may load adapters from below it; empty: they may not
  int max_loras = 8;     // in memory at a time
  int max_lora_rank = 64;

  std::string chat_template;   // a built-in one by its name; empty: the one that the checkpoint has
  int unread_bytes = 1 << 20;  // of a stream, that its client may leave
  bool reasoning_alias = false;  // chats show the thought as `reasoning`, too

  int drain_timeout_s = 120;
  int drain_unready_s = 5;

  std::string log_level = "info";
  std::string log_format = "text";

  std::string model_name;
  std::string ns;
  std::string group;
  std::string revision;
  std::string pod_name;

  bool version = false;

  // True when the ranks are spread over pods.
  bool is_distributed() const { return !leader_host.empty(); }
  bool measures_kernels() const { return kernels == "measured"; }
  bool fp8_activations() const { return activation_quantization == "fp8"; }
  bool rounds_weights() const {
    return weight_quantization == "int8" || weight_quantization == "int4";
  }
  // KV caches of the group: one that its ranks hold together, or one for each.
  int kv_caches() const { return data_parallel_attention ? tensor_parallel : 1; }
  bool is_leader() const { return pod_index == 0; }
  int local_ranks() const { return ranks_per_pod; }
  bool has_adapters() const { return !adapters.empty() || !lora_dir.empty(); }
  Logger logger() const;
};

// Parsed and validated. kCancelled: --help, the message is the help; kInvalid: a sentence.
Result<Options> parse_options(int argc, const char* const* argv);

}  // namespace dsm::worker
