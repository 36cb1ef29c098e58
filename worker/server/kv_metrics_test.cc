// What is shown of the KV cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/server/metrics.h"

namespace dsm::server {
namespace {

using ::testing::HasSubstr;

TEST(KvMetrics, TellHowMuchIsUsedAndHowMuchOfThatIsEmpty) {
  MetricsRegistry registry;
  WorkerMetrics metrics(registry, "tiny", 1024, 8, 0);
  engine::EngineStats stats;
  stats.kv_blocks_total = 8;
  stats.kv_blocks_used = 2;
  stats.kv_slots_empty = 32;
  metrics.update(stats);
  const std::string text = metrics_text(registry);
  EXPECT_THAT(text, HasSubstr("dsm_kv_cache_capacity_tokens{model=\"tiny\"} 512"));
  EXPECT_THAT(text, HasSubstr("dsm_kv_cache_used_ratio{model=\"tiny\"} 0.25"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0.25"));
  EXPECT_THAT(text, HasSubstr("dsm_kv_cache_fragmentation_ratio{model=\"tiny\"} 0.25"));
}

}  // namespace
}  // namespace dsm::server
