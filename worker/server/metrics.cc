#include "worker/server/metrics.h"

namespace dsm::server {
namespace {

const std::vector<double> kFirstTokenBounds = {.001, .005, .01, .02, .04, .06, .08, .1,
                                               .25,  .5,   .75, 1,   2.5, 5,   7.5, 10,
                                               20,   40,   80,  160, 640, 2560};
const std::vector<double> kNextTokenBounds = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                              .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
const std::vector<double> kRequestBounds = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                            30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};

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
  ours->Set(value);
  vllm->Set(value);
}
void WorkerMetrics::Counter::add(double value) const {
  ours->Increment(value);
  if (vllm != nullptr) vllm->Increment(value);
}
void WorkerMetrics::Counter::raise_to(double value) const {
  if (value > ours->Value()) add(value - ours->Value());
}
void WorkerMetrics::Histogram::observe(double value) const {
  ours->Observe(value);
  vllm->Observe(value);
}

WorkerMetrics::Gauge WorkerMetrics::gauge(const char* ours, const char* vllm, const char* help) {
  return {&prometheus::BuildGauge().Name(ours).Help(help).Register(registry_).Add(labels_),
          &prometheus::BuildGauge().Name(vllm).Help(help).Register(registry_).Add(labels_vllm_)};
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
                                                  const std::vector<double>& bounds) {
  return {
      &prometheus::BuildHistogram().Name(ours).Help(help).Register(registry_).Add(labels_, bounds),
      &prometheus::BuildHistogram().Name(vllm).Help(help).Register(registry_).Add(labels_vllm_,
                                                                                  bounds)};
}

WorkerMetrics::WorkerMetrics(MetricsRegistry& registry, const std::string& model_name,
                             int max_model_len, int kv_blocks)
    : registry_(registry),
      labels_{{"model", model_name}},
      labels_vllm_{{"model_name", model_name}, {"engine", "0"}},
      waiting_(gauge("dsm_requests_waiting", "vllm:num_requests_waiting",
                     "Requests accepted and not scheduled yet")),
      running_(gauge("dsm_requests_running", "vllm:num_requests_running",
                     "Requests whose tokens are being computed")),
      kv_usage_(gauge("dsm_kv_cache_used_ratio", "vllm:kv_cache_usage_perc",
                      "Part of the KV cache in use, 0 to 1")),
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
      first_token_(histogram("dsm_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
                             "From the arrival of a request to its first token",
                             kFirstTokenBounds)),
      next_token_(histogram("dsm_inter_token_latency_seconds", "vllm:inter_token_latency_seconds",
                            "Between two tokens of a request", kNextTokenBounds)),
      duration_(histogram("dsm_request_duration_seconds", "vllm:e2e_request_latency_seconds",
                          "From the arrival of a request to its last token", kRequestBounds)),
      request_prompt_(histogram("dsm_request_prompt_tokens", "vllm:request_prompt_tokens",
                                "Prompt tokens of a request", one_two_five(max_model_len))),
      request_generation_(
          histogram("dsm_request_generation_tokens", "vllm:request_generation_tokens",
                    "Tokens generated for a request", one_two_five(max_model_len))) {
  for (const char* reason : {"stop", "length", "cancelled", "error"}) {
    const bool success = reason == std::string("stop") || reason == std::string("length");
    finished_.emplace(reason, counter("dsm_requests_finished_total",
                                      success ? "vllm:request_success_total" : nullptr,
                                      "Requests that ended, by reason", {{"reason", reason}},
                                      {{"finished_reason", reason}}));
  }
  for (const char* reason : {"queue_full", "unavailable", "invalid"}) {
    const bool queue = reason == std::string("queue_full");
    rejected_.emplace(reason, counter("dsm_requests_rejected_total",
                                      queue ? "vllm:admission_rejections_total" : nullptr,
                                      "Requests refused, by reason", {{"reason", reason}},
                                      {{"reason", "max_num_queued_reqs"}}));
  }
  prometheus::BuildGauge()
      .Name("dsm_kv_cache_capacity_tokens")
      .Help("Tokens that the KV cache holds")
      .Register(registry_)
      .Add(labels_)
      .Set(static_cast<double>(kv_blocks) * engine::kBlockTokens);
  Labels info = labels_vllm_;
  info["block_size"] = std::to_string(engine::kBlockTokens);
  info["num_gpu_blocks"] = std::to_string(kv_blocks);
  prometheus::BuildGauge()
      .Name("vllm:cache_config_info")
      .Help("Sizes of the KV cache, as labels")
      .Register(registry_)
      .Add(info)
      .Set(1);
}

void WorkerMetrics::update(const engine::EngineStats& stats) {
  const std::lock_guard lock(update_mutex_);  // raise_to() reads and then writes
  waiting_.set(stats.waiting);
  running_.set(stats.running);
  kv_usage_.set(stats.kv_blocks_total == 0 ? 0
                                           : static_cast<double>(stats.kv_blocks_used) /
                                                 static_cast<double>(stats.kv_blocks_total));
  prompt_tokens_.raise_to(static_cast<double>(stats.prompt_tokens));
  generation_tokens_.raise_to(static_cast<double>(stats.generation_tokens));
  preemptions_.raise_to(static_cast<double>(stats.preemptions));
  prefix_queries_.raise_to(static_cast<double>(stats.prefix_query_tokens));
  prefix_hits_.raise_to(static_cast<double>(stats.prefix_hit_tokens));
  steps_.raise_to(static_cast<double>(stats.steps));
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
}

void WorkerMetrics::rejected(const std::string& reason) {
  if (const auto found = rejected_.find(reason); found != rejected_.end()) found->second.add(1);
}

}  // namespace dsm::server
