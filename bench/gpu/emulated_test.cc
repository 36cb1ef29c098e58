// The measuring itself on the emulated GPU, whose times mean nothing: every operator and step is
// there once for each number of rows, with the work that belongs to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <tuple>

#include "bench/gpu/kernel_bench.h"
#include "bench/gpu/model_bench.h"
#include "bench/gpu/trial_bench.h"
#include "bench/gpu/type_bench.h"
#include "bench/gpu/work.h"
#include "worker/kernel_startup.h"

namespace dsm::bench {
namespace {

ModelShape grouped() {
  return {"grouped",
          R"({"model_type": "qwen2", "hidden_act": "silu", "hidden_size": 32,
              "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 1024,
              "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
              "head_dim": 16})"};
}

ModelShape latent() {
  return {"latent",
          R"({"model_type": "deepseek_v2", "hidden_act": "silu", "hidden_size": 32,
              "intermediate_size": 80, "moe_intermediate_size": 24, "num_hidden_layers": 2,
              "first_k_dense_replace": 1, "moe_layer_freq": 1, "num_attention_heads": 4,
              "num_key_value_heads": 4, "q_lora_rank": null, "kv_lora_rank": 32,
              "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16,
              "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3,
              "n_group": 1, "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
              "norm_topk_prob": false, "routed_scaling_factor": 1.0, "vocab_size": 128,
              "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
              "tie_word_embeddings": false})"};
}

// Gone with its object.
struct TestFolder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("gpu-bench-test-" + std::to_string(getpid()));

  TestFolder() { std::filesystem::create_directories(path); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

// Measurements by name, in the order of rows.
struct Kept {
  std::map<std::string, std::vector<Measurement>> by_name;

  std::function<void(const Measurement&)> keep() {
    return [this](const Measurement& m) {
      EXPECT_THAT(m.device, ::testing::StartsWith("cuda/emulated"));
      EXPECT_GT(m.seconds, 0) << m.name;
      EXPECT_GT(m.work.bytes, 0) << m.name;
      by_name[m.name].push_back(m);
    };
  }
  std::vector<int> rows(const std::string& name) {
    std::vector<int> rows;
    for (const Measurement& m : by_name[name]) rows.push_back(m.rows);
    return rows;
  }
};

const KernelPlan kKernels = {
    .decode_rows = {1, 3}, .context = 70, .prompt = 20, .repeats = 1, .flush_bytes = 64};

TEST(Kernels, OfGroupedQueryAttentionAreAllMeasured) {
  Kept kept;
  const auto shape = grouped();
  ASSERT_TRUE(measure_kernels(shape, kKernels, kept.keep()).has_value());
  for (const char* name :
       {"qkv", "output", "down", "down (FP8)", "gate, up and SwiGLU", "norm", "rounding to FP8",
        "embedding", "keys and values", "rope of queries", "attention"}) {
    EXPECT_EQ(kept.rows(name), (std::vector{1, 3, 20})) << name;
  }
  for (const char* name : {"head", "choice, highest", "choice, drawn", "choice, drawn by top_p"}) {
    EXPECT_EQ(kept.rows(name), (std::vector{1, 3})) << name;
  }
  for (const char* way : {", many rows' kernel", ", library", ", deterministic",
                          ", deterministic, many rows' kernel"}) {
    for (const char* name : {"qkv", "output", "down", "gate, up and SwiGLU"}) {
      EXPECT_EQ(kept.rows(std::string(name) + way), std::vector{20}) << name;
    }
  }
  EXPECT_EQ(kept.rows("attention, by warps"), std::vector{20});
  EXPECT_EQ(kept.by_name.size(), 32U);
  EXPECT_EQ(kept.by_name["qkv"][1].work.flops, 2.0 * 3 * 32 * 128);
}

TEST(Kernels, OfLatentAttentionAndExpertsAreAllMeasured) {
  Kept kept;
  ASSERT_TRUE(measure_kernels(latent(), kKernels, kept.keep()).has_value());
  for (const char* name :
       {"q", "kv_a", "output", "down", "down (FP8)", "gate, up and SwiGLU", "norm",
        "keys and values", "attention", "experts: gate, up and SwiGLU", "experts: down and sum",
        "router's logits", "router", "queries to latents", "latents to values"}) {
    EXPECT_EQ(kept.rows(name), (std::vector{1, 3, 20})) << name;
  }
  for (const char* name :
       {"attention of expanded heads", "attention of expanded heads, by warps"}) {
    EXPECT_EQ(kept.rows(name), std::vector{20}) << name;
  }
  // One token: the shared experts and three others.
  const auto& down = kept.by_name["experts: down and sum"][0];
  EXPECT_EQ(down.work.flops, 2.0 * 32 * (2 * 24 + 3 * 24));
  EXPECT_EQ(kept.rows("experts: groups on the device"), (std::vector{1, 3, 20}));
  // The device's groups are those of the host.
  for (const char* what : {"gate, up and SwiGLU", "down and sum"}) {
    const auto& routed = kept.by_name[std::string("routed experts: ") + what];
    const auto& grouped = kept.by_name[std::string("experts: ") + what];
    ASSERT_EQ(routed.size(), grouped.size()) << what;
    for (std::size_t i = 0; i < routed.size(); ++i) {
      EXPECT_EQ(routed[i].work.flops, grouped[i].work.flops) << what;
      EXPECT_EQ(routed[i].work.bytes, grouped[i].work.bytes) << what;
    }
    for (const char* way : {", many rows' kernel", ", few rows' kernel"}) {
      EXPECT_EQ(kept.rows(std::string("routed experts: ") + what + way), std::vector{20});
    }
  }
  // Of prompts alone.
  for (const char* name : {"expansion of latents", "expansion of latents, 64 at a time"}) {
    EXPECT_EQ(kept.rows(name), std::vector{20}) << name;
  }
}

TEST(Types, ProductsAndAttentionAreMeasuredInEach) {
  for (const ModelShape& shape : {grouped(), latent()}) {
    Kept kept;
    ASSERT_TRUE(measure_types(shape, kKernels, kept.keep()).has_value());
    for (const char* product : {"output", "gate and up", "down"}) {
      for (const char* type : {" (FP8)", " (FP8 by FP8)", " (INT8)", " (INT4)"}) {
        EXPECT_EQ(kept.rows(product + std::string(type)), (std::vector{1, 3, 20})) << product;
      }
      EXPECT_EQ(kept.rows(product + std::string(" (FP8 by FP8, without many rows' kernel)")),
                (std::vector{20}))
          << product;
      for (const char* way : {" (FP8, by many rows' kernel)", " (INT8, without many rows' kernel)",
                              " (INT4, without many rows' kernel)"}) {
        EXPECT_EQ(kept.rows(product + std::string(way)), (std::vector{20})) << product;
      }
      EXPECT_EQ(kept.rows(product + std::string(" (FP8 by FP8, by pairs of blocks)")),
                std::vector{20})
          << product;
    }
    for (const char* type : {"BF16", "FP8"}) {
      EXPECT_EQ(kept.rows("attention (" + std::string(type) + " cache)"), (std::vector{1, 3, 20}));
    }
    EXPECT_EQ(kept.by_name.size(), 29U) << shape.name;
    EXPECT_EQ(kept.by_name["down (FP8)"][0].work.flops,
              kept.by_name["down (FP8 by FP8)"][0].work.fp8_flops);
    EXPECT_EQ(kept.by_name["attention (BF16 cache)"][0].work.bytes,
              2 * kept.by_name["attention (FP8 cache)"][0].work.bytes);
  }
}

TEST(Model, StepsAreMeasuredInEachMode) {
  const TestFolder folder;
  for (const ModelShape& shape : {grouped(), latent()}) {
    for (const auto& [mode, what] :
         {std::pair{"", ModelPlan{}},
          {" (loose)", {.deterministic = false}},
          {" (many rows' kernel)", {.wide_exact = true}},
          {" (loose, megakernel)", {.deterministic = false, .megakernel = true}},
          {" (loose, FP8)", {.deterministic = false, .fp8 = true}}}) {
      Kept kept;
      ModelPlan plan = what;
      plan.decode_rows = {1, 2};
      plan.context = 70;
      plan.prompt = 20;
      plan.steps = 1;
      plan.threads = 1;
      const auto done = measure_model(shape, plan, folder.path, kept.keep());
      ASSERT_TRUE(done.has_value()) << done.error().message;
      for (const char* name : {"decode", "decode, drawn", "decode, logits to the host"}) {
        EXPECT_EQ(kept.rows(std::string(name) + mode), (std::vector{1, 2})) << name;
      }
      EXPECT_EQ(kept.rows(std::string("prefill") + mode), std::vector{20});
      EXPECT_GT(kept.by_name[std::string("prefill") + mode][0].host_seconds, 0);
    }
  }
}

TEST(Trials, AreMeasuredInEachWayByProcessesOfTheirOwn) {
  const TestFolder folder;
  std::map<std::string, int> steps;
  std::vector<std::string> said;
  const auto done = measure_trials(
      grouped(),
      {.program = {"/proc/self/exe", std::string(worker::kTrialsCommand)},
       .prompt = 20,
       .repeats = 1,
       .threads = 1},
      folder.path,
      [&](const Measurement& m) {
        EXPECT_GT(m.seconds, 0) << m.name;
        ++steps[m.name];
      },
      [&](const std::string& line) { said.push_back(line); });
  ASSERT_TRUE(done.has_value()) << done.error().message;
  for (const char* kernels : {"proven", "tried"}) {
    EXPECT_EQ(steps[std::string("a few layers (loose), megakernel, ") + kernels], 2);
  }
  EXPECT_THAT(said, ::testing::Contains(::testing::StartsWith("grouped, deterministic: ")));
  EXPECT_THAT(said, ::testing::Each(::testing::Not(::testing::HasSubstr("stopped short"))));
}

}  // namespace
}  // namespace dsm::bench

int main(int argc, char** argv) {
  if (argc == 3 && argv[1] == dsm::worker::kTrialsCommand) return dsm::worker::try_kernels(argv[2]);
  testing::InitGoogleMock(&argc, argv);
  return RUN_ALL_TESTS();
}
