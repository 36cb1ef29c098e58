#include "worker/startup.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "base/random.h"
#include "worker/adapter_startup.h"
#include "worker/cores.h"
#include "worker/device/devices.h"
#include "worker/device/gpu.h"
#include "worker/grammar/grammar.h"
#include "worker/kv_size.h"
#include "worker/memory_limit.h"
#include "worker/model/activations.h"
#include "worker/model/device_check.h"
#include "worker/model/probe_file.h"

namespace dsm::worker {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeaderBytes = 64 << 10;  // of a weight file, for digest()

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool model_drafts(const engine::SchedulerConfig& scheduler) {
  return scheduler.speculation.method == engine::SpeculationConfig::Method::kMtp;
}

// What must be the same on all ranks. Of a weight file that is its name, size and header, which
// tell apart checkpoints without reading gigabytes. Of an adapter it is everything: two that were
// trained alike have the same header.
std::string digest(const Options& options, const engine::SchedulerConfig& scheduler) {
  std::string all = read_file(fs::path(options.model) / "config.json");
  std::vector<fs::path> weights;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(options.model, ignored)) {
    if (entry.path().extension() == ".safetensors") weights.push_back(entry.path());
  }
  std::sort(weights.begin(), weights.end());
  for (const fs::path& file : weights) {
    std::string header(kHeaderBytes, '\0');
    std::ifstream in(file, std::ios::binary);
    in.read(header.data(), static_cast<std::streamsize>(header.size()));
    header.resize(static_cast<std::size_t>(in.gcount()));
    all += file.filename().string() + std::to_string(fs::file_size(file, ignored)) + header;
  }
  // Rows name adapters by their number, which is their place here.
  for (const auto& [name, dir] : options.adapters) all += "," + name + adapter_digest(dir);
  for (const int number :
       {options.tensor_parallel, scheduler.max_batch_tokens, scheduler.max_model_len,
        scheduler.num_blocks, model_drafts(scheduler) ? 1 : 0, options.fp8_activations() ? 1 : 0,
        *options.deterministic ? 1 : 0, options.expert_parallel ? 1 : 0,
        options.data_parallel_attention ? 1 : 0, options.sleep_mode ? 1 : 0,
        options.has_adapters() ? options.max_lora_rank : 0}) {
    all += "," + std::to_string(number);
  }
  if (options.rounds_weights()) all += "," + options.weight_quantization + ",head int8,rows int16";
  all += "," + options.kv_cache_dtype;
  return sha256_hex(all);
}

// parse_options() lets no other text pass.
kernels::DType kv_dtype(const Options& options) {
  if (options.kv_cache_dtype == "bf16") return kernels::DType::kBF16;
  return options.kv_cache_dtype == "fp8" ? kernels::DType::kF8E4M3 : kernels::DType::kF32;
}
device::AllReduce all_reduce(const Options& options) {
  if (options.all_reduce == "nccl") return device::AllReduce::kNccl;
  return options.all_reduce == "peer" ? device::AllReduce::kPeer : device::AllReduce::kAuto;
}
sizing::KvType kv_type(const Options& options) {
  if (options.kv_cache_dtype == "bf16") return sizing::KvType::kBf16;
  return options.kv_cache_dtype == "fp8" ? sizing::KvType::kFp8 : sizing::KvType::kF32;
}

Result<engine::SpeculationConfig> speculation_config(const Options& options,
                                                     const model::ModelConfig& config) {
  static_assert(kMaxSpeculativeTokens == engine::kMaxSpeculativeTokens);
  using Method = engine::SpeculationConfig::Method;
  engine::SpeculationConfig made{.method = Method::kNone, .tokens = options.speculative_tokens};
  if (options.speculative_method == "ngram") made.method = Method::kNgram;
  if (options.speculative_method == "mtp") {
    made.method = Method::kMtp;
    if (config.mtp_layers == 0) {
      return fail(ErrorKind::kInvalid,
                  "--speculative-method is mtp, but the model has no prediction layer "
                  "(num_nextn_predict_layers in config.json); ngram needs none");
    }
  }
  return made;
}

// Bits of the integers that weights are rounded to; 0: they stay as they are stored.
int weight_bits(const Options& options) {
  if (!options.rounds_weights()) return 0;
  return options.weight_quantization == "int8" ? 8 : 4;
}

std::optional<kernels::DType> rounding(const Options& options) {
  if (!options.rounds_weights()) return {};
  return weight_bits(options) == 8 ? kernels::DType::kInt8 : kernels::DType::kInt4;
}

// Whether the checkpoint is what --weight-quantization says of it.
Status check_stored(const Options& options, const model::ModelConfig& config) {
  const bool fp8 = config.quantization.has_value();
  const std::string integers =
      config.integers ? "INT" + std::to_string(config.integers->bits()) : "";
  const std::string& asked = options.weight_quantization;
  if (asked == "fp8" && !fp8) {
    return fail(ErrorKind::kInvalid,
                "--weight-quantization is fp8, but the checkpoint is " +
                    (integers.empty()
                         ? "not in FP8 (config.json has no quantization_config): take one that is, "
                           "or int8, which is rounded at load"
                         : "in " + integers +
                               " (quantization_config in config.json): take one in FP8, or auto"));
  }
  if (asked == "none" && (fp8 || !integers.empty())) {
    return fail(ErrorKind::kInvalid, "--weight-quantization is none, but the checkpoint is in " +
                                         (fp8 ? std::string("FP8") : integers) +
                                         " (quantization_config in config.json): take one in BF16, "
                                         "or auto");
  }
  if (auto once = model::check_rounding(config.integers, rounding(options)); !once) {
    return fail(once.error().kind,
                "--weight-quantization is " + asked + ": " + once.error().message);
  }
  return {};
}

sizing::Ask memory_ask(const Options& options, const engine::SchedulerConfig& scheduler) {
  return {
      .device = sizing::Device::kCpu,
      .cut = {.tensor = options.tensor_parallel,
              .drafts = model_drafts(scheduler),
              .deterministic = *options.deterministic,
              .expert_parallel = options.expert_parallel,
              .data_parallel_attention = options.data_parallel_attention,
              .weight_bits = weight_bits(options)},
      .kv_type = kv_type(options),
      .sharing = options.local_ranks(),
      .context = scheduler.max_model_len,
      .kv_tokens = options.kv_cache_tokens,
      .step = {.batch_tokens = scheduler.max_batch_tokens, .sequences = scheduler.max_num_seqs}};
}

Result<sizing::Shape> shape_of(const Options& options) {
  const fs::path file = fs::path(options.model) / "config.json";
  return sizing::parse_shape(read_file(file), file.string());
}

// A GPU says itself how many there is room for, when it has the weights; one request of the longest
// context must fit.
bool kv_by_gpu(const Options& options, device::Device device) {
  return device == device::Device::kCuda && options.kv_cache_tokens == 0;
}

Result<std::int64_t> cache_tokens(const Options& options, device::Device device,
                                  const engine::SchedulerConfig& scheduler) {
  if (kv_by_gpu(options, device)) {
    return std::int64_t{scheduler.max_model_len} * options.kv_caches();
  }
  const auto shape = shape_of(options);
  if (!shape) return std::unexpected(shape.error());
  // The cgroup's limit is the host's memory.
  const bool host = device == device::Device::kCpu;
  return kv_cache_tokens(
      *shape, memory_ask(options, scheduler),
      {.limit = host ? memory_limit() : std::nullopt, .adapters = options.has_adapters()});
}

Result<std::optional<model::KvRoom>> kv_room(const Options& options, device::Device device,
                                             const engine::SchedulerConfig& scheduler) {
  if (device != device::Device::kCuda) return std::nullopt;
  const auto shape = shape_of(options);
  if (!shape) return std::unexpected(shape.error());
  sizing::Ask ask = memory_ask(options, scheduler);
  ask.sharing = 1;  // each rank has a GPU's memory to itself
  return model::KvRoom{
      .bytes_per_block = sizing::need_of(*shape, ask, 0).cache_per_token * engine::kBlockTokens,
      .longest = scheduler.max_model_len,
      .sequences = scheduler.max_num_seqs,
      .fraction = options.kv_cache_fraction,
      .later = sizing::later_bytes(ask.cut),
      .free_bytes = device::free_gpu_bytes};
}

Result<engine::SchedulerConfig> scheduler_config(const Options& options, device::Device device,
                                                 const model::ModelConfig& config) {
  engine::SchedulerConfig scheduler;
  scheduler.max_num_seqs = options.max_num_seqs;
  scheduler.max_batch_tokens = options.max_num_batched_tokens;
  scheduler.max_model_len =
      options.max_model_len == 0 ? config.max_positions : options.max_model_len;
  scheduler.prefix_caching = options.prefix_caching;
  scheduler.kv_cache_dtype = options.kv_cache_dtype;
  scheduler.max_waiting = options.max_waiting;
  scheduler.max_waiting_tokens = options.max_waiting_tokens;
  scheduler.vocab_size = config.vocab_size;
  const auto speculation = speculation_config(options, config);
  if (!speculation) return std::unexpected(speculation.error());
  scheduler.speculation = *speculation;
  if (scheduler.max_model_len > config.max_positions) {
    return fail(ErrorKind::kInvalid, "--max-model-len is " + std::to_string(options.max_model_len) +
                                         ", the model allows " +
                                         std::to_string(config.max_positions));
  }
  const auto tokens = cache_tokens(options, device, scheduler);
  if (!tokens) return std::unexpected(tokens.error());
  scheduler.kv_caches = options.kv_caches();
  const std::int64_t unit = std::int64_t{scheduler.kv_caches} * engine::kBlockTokens;
  scheduler.num_blocks = static_cast<int>((*tokens + unit - 1) / unit);
  if (auto valid = engine::validate(scheduler); !valid) return std::unexpected(valid.error());
  return scheduler;
}

Result<engine::Probe> probe_of(const Options& options, const model::ModelConfig& config,
                               int context_limit) {
  auto file = model::load_probe_file(options.model, config.vocab_size,
                                     std::min(engine::Probe::kMaxTokens, config.max_positions));
  if (!file) return std::unexpected(file.error());
  engine::Probe probe = engine::default_probe(config.vocab_size, context_limit);
  if (*file) {
    probe.prompt = std::move((*file)->prompt);
    probe.expected = std::move((*file)->answer);
    probe.answer_tokens = static_cast<int>(probe.expected.size());
    // The answer of the weights as they are stored; of rounded ones no answer is known before.
    if (options.rounds_weights()) probe.expected.clear();
    // The answer is that of keys and values as they are; of rounded ones none is known before.
    if (options.kv_cache_dtype != "fp32") probe.expected.clear();
  }
  probe.exact = *options.deterministic && !options.fp8_activations();
  return probe;
}

std::int64_t now_unix() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<Seconds>(now).count();
}

Result<server::ServedModel> served_model(const Options& options, const model::ModelConfig& config,
                                         int max_model_len) {
  const fs::path dir = options.model;
  auto tokenizer = text::Tokenizer::load(dir / "tokenizer.json");
  if (!tokenizer) return std::unexpected(tokenizer.error());
  auto chat_template = options.chat_template.empty()
                           ? text::ChatTemplate::select(*tokenizer)
                           : text::ChatTemplate::by_name(*tokenizer, options.chat_template);
  if (!chat_template) return std::unexpected(chat_template.error());
  auto defaults = server::parse_generation_config(read_file(dir / "generation_config.json"));
  if (!defaults) return std::unexpected(defaults.error());
  if (tokenizer->vocab_size() > config.vocab_size) {
    return fail(ErrorKind::kInvalid,
                "the tokenizer has " + std::to_string(tokenizer->vocab_size()) +
                    " tokens, the model only " + std::to_string(config.vocab_size));
  }
  std::vector<engine::TokenId> eos = config.eos_tokens;
  const auto own = tokenizer->eos();
  if (own && std::find(eos.begin(), eos.end(), *own) == eos.end()) eos.push_back(*own);
  if (eos.empty()) {
    return fail(ErrorKind::kInvalid,
                "neither config.json nor the tokenizer names an end-of-sequence token");
  }
  auto made = grammar::GrammarFactory::make(*tokenizer, config.vocab_size, eos);
  if (!made) return std::unexpected(made.error());
  const std::shared_ptr<const grammar::GrammarFactory> grammars = std::move(*made);
  return server::ServedModel{
      .name = options.served_name,
      .created = now_unix(),
      .max_model_len = max_model_len,
      .vocab_size = config.vocab_size,
      .tokenizer = std::move(*tokenizer),
      .chat_template = *chat_template,
      .eos_tokens = std::move(eos),
      .defaults = *defaults,
      .compile_grammar =
          [grammars](const grammar::GrammarSpec& grammar, std::optional<engine::TokenId> after) {
            return grammars->compile(grammar, after);
          },
      .reasoning_alias = options.reasoning_alias};
}

Result<group::GroupOptions> group_options(const Options& options, const std::string& digest) {
  group::GroupOptions group;
  group.tensor_parallel = options.tensor_parallel;
  group.ranks_per_pod = options.ranks_per_pod;
  group.pod_index = options.pod_index;
  group.leader_host = options.leader_host;
  group.control_port = static_cast<std::uint16_t>(options.control_port);
  group.advertise_host = options.advertise_host;
  group.revision = options.revision;
  group.model_digest = digest;
  if (!options.internal_token_file.empty()) {
    auto token = server::read_token(options.internal_token_file);
    if (!token) return std::unexpected(token.error());
    group.token = std::move(*token);
  }
  if (auto valid = group::validate(group); !valid) return std::unexpected(valid.error());
  return group;
}

server::WorkerServerOptions server_options(const Options& options, device::Device device,
                                           int max_model_len) {
  server::WorkerServerOptions server;
  server.host = options.host;
  server.port = static_cast<std::uint16_t>(options.port);
  server.internal_port = static_cast<std::uint16_t>(options.internal_port);
  server.internal_token_file = options.internal_token_file;
  server.leader = options.is_leader();
  server.can_sleep = device == device::Device::kCpu || options.sleep_mode;
  server.await_keys = options.await_keys;
  server.max_model_len = max_model_len;
  server.identity = {.model = options.model_name,
                     .ns = options.ns,
                     .group = options.group,
                     .revision = options.revision,
                     .pod = options.pod_name};
  server.version = kVersion;
  return server;
}

// The device that is asked for, or the GPU that is there, if it can compute the model.
Result<device::Device> usable_device(const Options& options, const model::ModelConfig& config) {
  const auto device = device::find_device(options.device);
  // With its reason, so that the operator tells a node without a usable GPU from other mistakes.
  if (!device) {
    return fail(device.error().kind, "DeviceError: --device is cuda: " + device.error().message);
  }
  auto fits = model::check_device(config, *device);
  if (fits) fits = device::check_ranks(*device, options.local_ranks(), options.tensor_parallel);
  if (!fits) {
    return fail(fits.error().kind,
                "--device is " + options.device + ": " + fits.error().message + " (--device cpu)");
  }
  return *device;
}

}  // namespace

Result<Startup> prepare(const Options& given, const Logger& log) {
  const auto config = model::load_model_config(given.model);
  if (!config) return std::unexpected(config.error());
  const auto device = usable_device(given, *config);
  if (!device) return std::unexpected(device.error());
  Options options = given;
  if (!options.deterministic) options.deterministic = *device == device::Device::kCpu;
  if (auto fits = model::check_tensor_parallel(*config, options.tensor_parallel); !fits) {
    return std::unexpected(fits.error());
  }
  if (options.expert_parallel) {
    auto fits =
        model::check_expert_parallel(*config, options.tensor_parallel, *options.deterministic);
    if (!fits) return fail(fits.error().kind, "--expert-parallel: " + fits.error().message);
  }
  if (options.data_parallel_attention) {
    auto fits = model::check_data_parallel_attention(*config);
    if (!fits) return fail(fits.error().kind, "--data-parallel-attention: " + fits.error().message);
  }
  if (options.fp8_activations()) {
    auto fits = model::check_fp8_activations(*config, options.tensor_parallel);
    if (!fits) {
      return fail(fits.error().kind, "--activation-quantization is fp8: " + fits.error().message);
    }
  }
  if (auto stored = check_stored(options, *config); !stored) {
    return std::unexpected(stored.error());
  }
  const auto scheduler = scheduler_config(options, *device, *config);
  if (!scheduler) return std::unexpected(scheduler.error());
  const auto room = kv_room(options, *device, *scheduler);
  if (!room) return std::unexpected(room.error());
  auto group = group_options(options, digest(options, *scheduler));
  if (!group) return std::unexpected(group.error());

  const bool measured = kv_by_gpu(options, *device);
  const int threads = options.threads > 0 ? options.threads : available_cores();
  Startup startup{.model = {.dir = options.model,
                            .config = *config,
                            .ranks = options.tensor_parallel,
                            .local_ranks = options.local_ranks(),
                            .device = *device,
                            .device_check = *device::check_kind(options.device_check),
                            .all_reduce = all_reduce(options),
                            .sleeps = options.sleep_mode,
                            .threads_per_rank = std::max(1, threads / options.local_ranks()),
                            .kv = {.num_blocks = measured ? 0 : scheduler->num_blocks,
                                   .dtype = kv_dtype(options),
                                   .room = *room},
                            .max_batch_tokens = scheduler->max_batch_tokens,
                            .drafts = model_drafts(*scheduler),
                            .deterministic = *options.deterministic,
                            .expert_parallel = options.expert_parallel,
                            .data_parallel_attention = options.data_parallel_attention,
                            .fp8_activations = options.fp8_activations(),
                            .round_weights = rounding(options),
                            .adapters = adapter_store(options, *config, *device)},
                  .scheduler = *scheduler,
                  .group = std::move(*group),
                  .server = server_options(options, *device, scheduler->context_limit()),
                  .served = std::nullopt,
                  .probe = {}};
  if (options.is_leader()) {
    auto served = served_model(options, *config, scheduler->context_limit());
    if (!served) return std::unexpected(served.error());
    // Ids that the tokenizer does not know are padding. Rank 0, which samples, is in this pod.
    startup.model.sampled_vocab = served->tokenizer.vocab_size();
    auto adapters = served_adapters(options, startup.model.adapters, served->created);
    if (!adapters) return std::unexpected(adapters.error());
    served->adapters = std::move(adapters->names);
    startup.shared_adapters = std::move(adapters->shared);
    auto asked = probe_of(options, *config, scheduler->context_limit());
    if (!asked) return std::unexpected(asked.error());
    startup.probe = std::move(*asked);
    startup.served.emplace(std::move(*served));
  } else {
    auto held = held_adapters(options, startup.model.adapters);
    if (!held) return std::unexpected(held.error());
    startup.held_adapters = std::move(*held);
  }
  log.info("starting",
           {{"version", kVersion},
            {"model", options.served_name},
            {"tensor_parallel", options.tensor_parallel},
            {"pod_index", options.pod_index},
            {"local_ranks", options.local_ranks()},
            {"threads_per_rank", startup.model.threads_per_rank},
            {"max_model_len", scheduler->context_limit()},
            {"kv_caches", scheduler->kv_caches},
            {"kv_tokens",
             measured ? 0 : scheduler->kv_caches * scheduler->num_blocks * engine::kBlockTokens},
            {"kv_cache_dtype", options.kv_cache_dtype}});
  return startup;
}

}  // namespace dsm::worker
