// The leader's metrics: our own names (dsm_*, with units), and beside them the names that gateways,
// autoscalers and dashboards made for vLLM read (vllm:*), from the same numbers. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/metrics.h"
#include "worker/engine/engine.h"

namespace dsm::server {

class WorkerMetrics {
 public:
  // `model_name` is the label of every series. `max_adapters` may be in memory at a time.
  WorkerMetrics(MetricsRegistry& registry, const std::string& model_name, int max_model_len,
                int kv_blocks, int max_adapters = 0);

  // Gauges and counters that the engine keeps; called before each scrape.
  void update(const engine::EngineStats& stats);

  // Whether all ranks sleep.
  void asleep(bool asleep);

  void first_token(double seconds_since_arrival);
  void next_token(double seconds_since_last);
  struct Finished {
    std::string reason;  // stop, length, cancelled, slow_reader, deadline, error
    double seconds = 0;  // since arrival
    int prompt_tokens = 0;
    int generation_tokens = 0;
    int longest_choice = 0;            // tokens
    int n = 1;                         // choices of each prompt
    int max_tokens = 0;                // that a choice was allowed
    engine::SequenceTimes times = {};  // as far as the request came
  };
  void finished(const Finished& request);
  void rejected(const std::string& reason);  // queue_full, queue_tokens, unavailable, invalid

 private:
  // A number that is shown under both names, and under older ones of vLLM's that tools still read.
  struct Gauge {
    prometheus::Gauge* ours;
    prometheus::Gauge* vllm;
    prometheus::Gauge* older = nullptr;
    void set(double value) const;
  };
  struct Counter {
    prometheus::Counter* ours;
    prometheus::Counter* vllm;
    void add(double value) const;
    void raise_to(double value) const;
  };
  struct Histogram {
    prometheus::Histogram* ours;
    prometheus::Histogram* vllm;
    prometheus::Histogram* older = nullptr;
    void observe(double value) const;
  };
  // One whose numbers the engine counts.
  struct CountedHistogram {
    Histogram shown;
    std::vector<double> counts = {};  // so far, by bucket
    double sum = 0;
    void raise_to(std::span<const std::uint64_t> now_counts, double now_sum);
  };
  using Labels = std::map<std::string, std::string>;
  Gauge gauge(const char* ours, const char* vllm, const char* help, const char* older = nullptr);
  Counter counter(const char* ours, const char* vllm, const char* help, const Labels& extra = {},
                  const Labels& extra_vllm = {});
  Histogram histogram(const char* ours, const char* vllm, const char* help,
                      const std::vector<double>& bounds, const char* older = nullptr);
  void update(const engine::SpeculationStats& stats);
  void update(const engine::BlockTimes& times);
  void finished(const engine::SequenceTimes& times, int longest_choice);
  void update_adapters(const engine::EngineStats& stats);
  void constant(const char* name, const char* help, Labels labels, double value);

  MetricsRegistry& registry_;
  Labels labels_;
  Labels labels_vllm_;
  std::mutex update_mutex_;
  std::string max_adapters_;
  prometheus::Gauge* adapters_ = nullptr;  // a series whose labels are the adapters in work

  prometheus::Gauge* asleep_ = nullptr;
  // vLLM has a series for each state.
  prometheus::Gauge* vllm_awake_ = nullptr;
  prometheus::Gauge* vllm_offloaded_ = nullptr;
  Gauge waiting_;
  Gauge running_;
  Gauge kv_usage_;
  Gauge kv_fragmentation_;
  Counter prompt_tokens_;
  Counter generation_tokens_;
  Counter preemptions_;
  Counter prefix_queries_;
  Counter prefix_hits_;
  Counter steps_;
  Counter drafts_;
  Counter draft_tokens_;
  Counter accepted_tokens_;
  std::vector<Counter> accepted_at_;  // by position of the draft; grows to the positions seen
  std::map<std::string, Counter> finished_;
  std::map<std::string, Counter> rejected_;
  Histogram first_token_;
  Histogram next_token_;
  Histogram duration_;
  Histogram request_prompt_;
  Histogram request_generation_;
  Histogram queue_;
  Histogram prefill_;
  Histogram decode_;
  Histogram inference_;
  Histogram per_token_;
  Histogram longest_choice_;
  Histogram n_;
  Histogram max_tokens_;
  CountedHistogram step_tokens_;
  CountedHistogram block_lifetime_;
  CountedHistogram block_idle_;
  CountedHistogram block_reuse_;
};

}  // namespace dsm::server
