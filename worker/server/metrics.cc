#include "worker/server/metrics.h"

#include <ctime>

namespace dsm::server {
namespace {

const std::vector<double> kFirstTokenBounds = {.001, .005, .01, .02, .04, .06, .08, .1,
                                               .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                               20,   40,   80,  160, 640, 2560};
const std::vector<double> kNextTokenBounds = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                              .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kRequestBounds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                            30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

double seconds(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

std::vector<double> bounds_of(std::span<const double> bounds) {
  return {bounds.begin(), bounds.end()};
}

// 1, 2, 5, 10, 20, 50, ... up to `highest`.
std::vector<double> one_two_five(int highest) {
  std::vector<double> bounds;
  for (double decade = 1; decade <= highest; decade *= 10) {
    for (const double step : {1.0, 2.0, 5.0}) {
      if (decade * step <= highest) bounds.push_back(decade * step);
    }
  }
  return bounds;
}

}  // namespace

void WorkerMetrics::Gauge::set(double value) const {
  for (prometheus::Gauge* one : {ours, vllm, older}) {
    if (one != nullptr) one->Set(value);
  }
}
void WorkerMetrics::Counter::add(double value) const {
  ours->Increment(value);
  if (vllm != nullptr) vllm->Increment(value);
}
void WorkerMetrics::Counter::raise_to(double value) const {
  if (value > ours->Value()) add(value - ours->Value());
}
void WorkerMetrics::Histogram::observe(double value) const {
  for (prometheus::Histogram* one : {ours, vllm, older}) {
    if (one != nullptr) one->Observe(value);
  }
}

void WorkerMetrics::CountedHistogram::raise_to(std::span<const std::uint64_t> now_counts,
                                               double now_sum) {
  counts.resize(now_counts.size());
  std::vector<double> more(now_counts.size());
  for (std::size_t i = 0; i < more.size(); ++i) {
    more[i] = static_cast<double>(now_counts[i]) - counts[i];
    counts[i] += more[i];
  }
  for (prometheus::Histogram* one : {shown.ours, shown.vllm, shown.older}) {
    if (one != nullptr) one->ObserveMultiple(more, now_sum - sum);
  }
  sum = now_sum;
}

WorkerMetrics::Gauge WorkerMetrics::gauge(const char* ours, const char* vllm, const char* help,
                                          const char* older) {
  const auto make = [&](const char* name, const Labels& labels) {
    return &prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels);
  };
  return {.ours = make(ours, labels_),
          .vllm = vllm == nullptr ? nullptr : make(vllm, labels_vllm_),
          .older = older == nullptr ? nullptr : make(older, labels_vllm_)};
}

WorkerMetrics::Counter WorkerMetrics::counter(const char* ours, const char* vllm, const char* help,
                                              const Labels& extra, const Labels& extra_vllm) {
  Labels mine = labels_;
  mine.insert(extra.begin(), extra.end());
  Labels theirs = labels_vllm_;
  theirs.insert(extra_vllm.begin(), extra_vllm.end());
  Counter made{&prometheus::BuildCounter().Name(ours).Help(help).Register(registry_).Add(mine),
               nullptr};
  if (vllm != nullptr) {
    made.vllm = &prometheus::BuildCounter().Name(vllm).Help(help).Register(registry_).Add(theirs);
  }
  return made;
}

WorkerMetrics::Histogram WorkerMetrics::histogram(const char* ours, const char* vllm,
                                                  const char* help,
                                                  const std::vector<double>& bounds,
                                                  const char* older) {
  const auto make = [&](const char* name, const Labels& labels) {
    return &prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(labels,
                                                                                       bounds);
  };
  return {.ours = make(ours, labels_),
          .vllm = make(vllm, labels_vllm_),
          .older = older == nullptr ? nullptr : make(older, labels_vllm_)};
}

void WorkerMetrics::update(const engine::SpeculationStats& stats) {
  drafts_.raise_to(static_cast<double>(stats.drafts));
  draft_tokens_.raise_to(static_cast<double>(stats.draft_tokens));
  accepted_tokens_.raise_to(static_cast<double>(stats.accepted_tokens));
  for (std::size_t i = 0; i < stats.accepted_per_position.size(); ++i) {
    if (i == accepted_at_.size()) {
      const Labels position{{"position", std::to_string(i)}};
      accepted_at_.push_back(counter("dsm_speculation_accepted_tokens_per_position_total",
                                     "vllm:spec_decode_num_accepted_tokens_per_pos_total",
                                     "Guessed tokens that were right, by position", position,
                                     position));
    }
    accepted_at_[i].raise_to(static_cast<double>(stats.accepted_per_position[i]));
  }
}

void WorkerMetrics::update(const engine::BlockTimes& times) {
  block_lifetime_.raise_to(times.lifetime.counts, times.lifetime.sum);
  block_idle_.raise_to(times.idle_before_evict.counts, times.idle_before_evict.sum);
  block_reuse_.raise_to(times.reuse_gap.counts, times.reuse_gap.sum);
}

// What stays as it is: most of it is said by the labels.
void WorkerMetrics::constant(const char* name, const char* help, Labels labels, double value) {
  prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels).Set(value);
}

WorkerMetrics::WorkerMetrics(MetricsRegistry& registry, const std::string& model_name,
                             int max_model_len, int kv_blocks, int max_adapters)
    : registry_(registry),
      labels_{{"model", model_name}},
      labels_vllm_{{"model_name", model_name}, {"engine", "0"}},
      max_adapters_(std::to_string(max_adapters)),
      waiting_(gauge("dsm_requests_waiting", "vllm:num_requests_waiting",
                     "Requests accepted and not scheduled yet")),
      running_(gauge("dsm_requests_running", "vllm:num_requests_running",
                     "Requests whose tokens are being computed")),
      kv_usage_(gauge("dsm_kv_cache_used_ratio", "vllm:kv_cache_usage_perc",
                      "Part of the KV cache in use, 0 to 1", "vllm:gpu_cache_usage_perc")),
      kv_fragmentation_(gauge("dsm_kv_cache_fragmentation_ratio", nullptr,
                              "Part of the KV cache in use that holds no token, 0 to 1")),
      prompt_tokens_(counter("dsm_prompt_tokens_total", "vllm:prompt_tokens_total",
                             "Prompt tokens of requests that were started")),
      generation_tokens_(counter("dsm_generation_tokens_total", "vllm:generation_tokens_total",
                                 "Tokens generated")),
      preemptions_(counter("dsm_preemptions_total", "vllm:num_preemptions_total",
                           "Sequences put back into the queue for lack of KV cache")),
      prefix_queries_(counter("dsm_prefix_cache_query_tokens_total",
                              "vllm:prefix_cache_queries_total",
                              "Prompt tokens looked up in the prefix cache")),
      prefix_hits_(counter("dsm_prefix_cache_hit_tokens_total", "vllm:prefix_cache_hits_total",
                           "Prompt tokens found in the prefix cache")),
      steps_(counter("dsm_engine_steps_total", nullptr, "Steps of the model")),
      drafts_(counter("dsm_speculation_drafts_total", "vllm:spec_decode_num_drafts_total",
                      "Times that tokens were guessed ahead for a sequence")),
      draft_tokens_(counter("dsm_speculation_draft_tokens_total",
                            "vllm:spec_decode_num_draft_tokens_total", "Tokens guessed")),
      accepted_tokens_(counter("dsm_speculation_accepted_tokens_total",
                               "vllm:spec_decode_num_accepted_tokens_total",
                               "Guessed tokens that were what the model chose")),
      first_token_(histogram("dsm_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
                             "From the arrival of a request to its first token",
                             kFirstTokenBounds)),
      next_token_(histogram("dsm_inter_token_latency_seconds", "vllm:inter_token_latency_seconds",
                            "Between two tokens of a request", kNextTokenBounds,
                            "vllm:time_per_output_token_seconds")),
      duration_(histogram("dsm_request_duration_seconds", "vllm:e2e_request_latency_seconds",
                          "From the arrival of a request to its last token", kRequestBounds)),
      request_prompt_(histogram("dsm_request_prompt_tokens", "vllm:request_prompt_tokens",
                                "Prompt tokens of a request", one_two_five(max_model_len))),
      request_generation_(histogram("dsm_request_generation_tokens",
                                    "vllm:request_generation_tokens",
                                    "Tokens generated for a request", one_two_five(max_model_len))),
      queue_(histogram("dsm_request_queue_seconds", "vllm:request_queue_time_seconds",
                       "From a request's place in the queue to its first step", kRequestBounds)),
      prefill_(histogram("dsm_request_prefill_seconds", "vllm:request_prefill_time_seconds",
                         "From the first step of a request to its first token", kRequestBounds)),
      decode_(histogram("dsm_request_decode_seconds", "vllm:request_decode_time_seconds",
                        "From the first token of a request to its last", kRequestBounds)),
      inference_(histogram("dsm_request_inference_seconds", "vllm:request_inference_time_seconds",
                           "From the first step of a request to its last token", kRequestBounds)),
      per_token_(histogram("dsm_request_time_per_output_token_seconds",
                           "vllm:request_time_per_output_token_seconds",
                           "Between two tokens of a request, as its mean", kNextTokenBounds)),
      longest_choice_(
          histogram("dsm_request_max_generation_tokens", "vllm:request_max_num_generation_tokens",
                    "Tokens of the longest choice of a request", one_two_five(max_model_len))),
      n_(histogram("dsm_request_choices", "vllm:request_params_n",
                   "Choices asked for of each prompt", {1, 2, 5, 10, 20})),
      max_tokens_(histogram("dsm_request_max_tokens", "vllm:request_params_max_tokens",
                            "Tokens that a choice of a request may have",
                            one_two_five(max_model_len))),
      step_tokens_{histogram("dsm_engine_step_tokens", "vllm:iteration_tokens_total",
                             "Tokens computed in a step", bounds_of(engine::kStepTokens))},
      block_lifetime_{histogram("dsm_kv_block_lifetime_seconds", "vllm:kv_block_lifetime_seconds",
                                "From the allocation of a block with cached contents to their "
                                "eviction",
                                bounds_of(engine::kBlockSeconds))},
      block_idle_{histogram("dsm_kv_block_idle_before_evict_seconds",
                            "vllm:kv_block_idle_before_evict_seconds",
                            "From the last use of a block's cached contents to their eviction",
                            bounds_of(engine::kBlockSeconds))},
      block_reuse_{histogram("dsm_kv_block_reuse_gap_seconds", "vllm:kv_block_reuse_gap_seconds",
                             "From a use of a block's cached contents to the next",
                             bounds_of(engine::kBlockSeconds))} {
  // Our reasons, and what vLLM calls them.
  struct Reason {
    const char* ours;
    const char* vllm;
  };
  for (const auto& [ours, vllm] :
       {Reason{"stop", "stop"}, Reason{"length", "length"}, Reason{"cancelled", "abort"},
        Reason{"slow_reader", "abort"}, Reason{"error", "error"}, Reason{"deadline", nullptr}}) {
    finished_.emplace(ours, counter("dsm_requests_finished_total",
                                    vllm != nullptr ? "vllm:request_success_total" : nullptr,
                                    "Requests that ended, by reason", {{"reason", ours}},
                                    {{"finished_reason", vllm != nullptr ? vllm : ""}}));
  }
  for (const auto& [ours, vllm] : {Reason{"queue_full", "max_num_queued_reqs"},
                                   Reason{"queue_tokens", "max_num_queued_tokens"},
                                   Reason{"unavailable", nullptr}, Reason{"invalid", nullptr}}) {
    rejected_.emplace(ours, counter("dsm_requests_rejected_total",
                                    vllm != nullptr ? "vllm:admission_rejections_total" : nullptr,
                                    "Requests refused, by reason", {{"reason", ours}},
                                    {{"reason", vllm != nullptr ? vllm : ""}}));
  }
  constant("dsm_kv_cache_capacity_tokens", "Tokens that the KV cache holds", labels_,
           static_cast<double>(kv_blocks) * engine::kBlockTokens);
  Labels cache = labels_vllm_;
  cache["block_size"] = std::to_string(engine::kBlockTokens);
  cache["num_gpu_blocks"] = std::to_string(kv_blocks);
  constant("vllm:cache_config_info", "Sizes of the KV cache, as labels", cache, 1);
  update_adapters({});
  const auto sleep_gauge = [&](const char* name, const Labels& labels) {
    return &prometheus::BuildGauge()
                .Name(name)
                .Help("Whether the ranks sleep: their devices' memory is free for others")
                .Register(registry_)
                .Add(labels);
  };
  asleep_ = sleep_gauge("dsm_asleep", labels_);
  Labels state = labels_vllm_;
  state["sleep_state"] = "awake";
  vllm_awake_ = sleep_gauge("vllm:engine_sleep_state", state);
  state["sleep_state"] = "weights_offloaded";
  vllm_offloaded_ = sleep_gauge("vllm:engine_sleep_state", state);
  asleep(false);
}

void WorkerMetrics::asleep(bool asleep) {
  asleep_->Set(asleep ? 1 : 0);
  vllm_awake_->Set(asleep ? 0 : 1);
  vllm_offloaded_->Set(asleep ? 1 : 0);
}

// Gateways look for this one whether or not there are adapters. Its value is the time at which it
// was true.
void WorkerMetrics::update_adapters(const engine::EngineStats& stats) {
  const auto list = [](const std::set<std::string>& names) {
    std::string all;
    for (const std::string& name : names) all += (all.empty() ? "" : ",") + name;
    return all;
  };
  Labels labels = labels_vllm_;
  labels["running_lora_adapters"] = list(stats.running_adapters);
  labels["waiting_lora_adapters"] = list(stats.waiting_adapters);
  labels["max_lora"] = max_adapters_;
  auto& family = prometheus::BuildGauge()
                     .Name("vllm:lora_requests_info")
                     .Help("Adapters of requests, as labels")
                     .Register(registry_);
  prometheus::Gauge* now = &family.Add(labels);  // the same one for the same labels
  if (adapters_ != nullptr && adapters_ != now) family.Remove(adapters_);
  adapters_ = now;
  adapters_->Set(static_cast<double>(std::time(nullptr)));
}

void WorkerMetrics::update(const engine::EngineStats& stats) {
  const std::lock_guard lock(update_mutex_);  // raise_to() reads and then writes
  waiting_.set(stats.waiting);
  running_.set(stats.running);
  const auto part = [](std::int64_t some, std::int64_t all) {
    return all == 0 ? 0 : static_cast<double>(some) / static_cast<double>(all);
  };
  kv_usage_.set(part(stats.kv_blocks_used, stats.kv_blocks_total));
  kv_fragmentation_.set(
      part(stats.kv_slots_empty, std::int64_t{stats.kv_blocks_used} * engine::kBlockTokens));
  prompt_tokens_.raise_to(static_cast<double>(stats.prompt_tokens));
  generation_tokens_.raise_to(static_cast<double>(stats.generation_tokens));
  preemptions_.raise_to(static_cast<double>(stats.preemptions));
  prefix_queries_.raise_to(static_cast<double>(stats.prefix_query_tokens));
  prefix_hits_.raise_to(static_cast<double>(stats.prefix_hit_tokens));
  update(stats.speculation);
  update(stats.block_times);
  step_tokens_.raise_to(stats.step_tokens.counts, stats.step_tokens.sum);
  steps_.raise_to(static_cast<double>(stats.steps));
  update_adapters(stats);
}

void WorkerMetrics::first_token(double seconds_since_arrival) {
  first_token_.observe(seconds_since_arrival);
}

void WorkerMetrics::next_token(double seconds_since_last) {
  next_token_.observe(seconds_since_last);
}

void WorkerMetrics::finished(const Finished& request) {
  if (const auto found = finished_.find(request.reason); found != finished_.end()) {
    found->second.add(1);
  }
  duration_.observe(request.seconds);
  request_prompt_.observe(request.prompt_tokens);
  request_generation_.observe(request.generation_tokens);
  longest_choice_.observe(request.longest_choice);
  n_.observe(request.n);
  max_tokens_.observe(request.max_tokens);
  finished(request.times, request.longest_choice);
}

void WorkerMetrics::finished(const engine::SequenceTimes& times, int longest_choice) {
  if (!times.started) return;
  queue_.observe(seconds(times.submitted, *times.started));
  if (!times.first_token) return;
  prefill_.observe(seconds(*times.started, *times.first_token));
  const double decode = seconds(*times.first_token, *times.last_token);
  decode_.observe(decode);
  inference_.observe(seconds(*times.started, *times.last_token));
  if (longest_choice > 1) per_token_.observe(decode / (longest_choice - 1));
}

void WorkerMetrics::rejected(const std::string& reason) {
  if (const auto found = rejected_.find(reason); found != rejected_.end()) found->second.add(1);
}

}  // namespace dsm::server
