// What times are held against, and how they are written down.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/gpu/report.h"
#include "bench/gpu/shapes.h"
#include "bench/gpu/work.h"
#include "sizing/weights.h"

namespace dsm::bench {
namespace {

model::ModelConfig config_of(const char* name) {
  const ModelShape* shape = find_shape(name);
  const auto config = model::parse_model_config(shape->config, shape->name);
  if (!config) throw std::runtime_error(config.error().message);
  return *config;
}

TEST(Bounds, ADeviceIsKnownByThePartOfItsNameThatSaysMost) {
  EXPECT_EQ(peaks_of("cuda/NVIDIA H100 80GB HBM3")->bytes_per_s, 3.35e12);
  EXPECT_EQ(peaks_of("cuda/NVIDIA H100 PCIe")->bytes_per_s, 2.0e12);
  EXPECT_EQ(peaks_of("cuda/NVIDIA A100-SXM4-80GB")->bf16_flops, 312e12);
  EXPECT_EQ(peaks_of("cuda/NVIDIA GeForce RTX 3090"), nullptr);
}

TEST(Bounds, TheSlowerOfMemoryAndArithmeticHolds) {
  const Peaks peaks{"", 1e12, 1e14};
  const Bound memory = bound_of({2e12, 1e14}, peaks);
  EXPECT_EQ(memory.seconds, 2);
  EXPECT_TRUE(memory.by_memory);
  const Bound arithmetic = bound_of({1e12, 3e14}, peaks);
  EXPECT_EQ(arithmetic.seconds, 3);
  EXPECT_FALSE(arithmetic.by_memory);
}

TEST(Shapes, AreThoseOfThePublicModels) {
  const double billions[] = {1.78, 7.62, 8.03, 15.71};
  for (std::size_t i = 0; i < public_shapes().size(); ++i) {
    const ModelShape& shape = public_shapes()[i];
    std::int64_t values = 0;
    std::int64_t bytes = 0;  // vectors become FP32
    for (const Tensor& tensor : tensors_of(config_of(shape.name.c_str()))) {
      std::int64_t count = 1;
      for (const auto extent : tensor.shape) count *= extent;
      values += count;
      bytes += count * (tensor.shape.size() == 1 ? 4 : 2);
    }
    EXPECT_NEAR(static_cast<double>(values) / 1e9, billions[i], 0.01) << shape.name;
    const auto size = sizing::parse_shape(shape.config, shape.name);
    ASSERT_TRUE(size.has_value()) << size.error().message;
    EXPECT_EQ(bytes, sizing::weight_bytes(*size, {}, sizing::Device::kGpu)) << shape.name;
  }
}

TEST(Shapes, InFp8HaveScalesForTheirBlocks) {
  const ModelShape shape = in_fp8(*find_shape("deepseek-v2-lite"));
  const auto config = model::parse_model_config(shape.config, shape.name);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  const auto tensors = tensors_of(*config);
  const auto find = [&](const std::string& name) {
    return *std::ranges::find(tensors, name, &Tensor::name);
  };
  const std::string expert = "model.layers.1.mlp.experts.63.down_proj.weight";
  EXPECT_EQ(find(expert).dtype, "F8_E4M3");
  EXPECT_EQ(find(expert + "_scale_inv").dtype, "F32");
  EXPECT_EQ(find(expert + "_scale_inv").shape, (std::vector<std::int64_t>{16, 11}));
  for (const char* name :
       {"lm_head.weight", "model.layers.1.mlp.gate.weight", "model.norm.weight"}) {
    EXPECT_EQ(find(name).dtype, "BF16") << name;
  }
}

TEST(Work, OfAStepIsItsWeightsAndItsCache) {
  const auto c = config_of("r1-distill-llama-8b");
  // All weights but the embedding, and 2 x 8 heads of 128 values in FP32 for 32 layers.
  const double weights =
      32.0 * (4096.0 * 6144 + 4096.0 * 4096 + 3 * 4096.0 * 14336) + 4096.0 * 128256;
  const double cache = 32 * 2 * 8 * 128 * 4.0;
  const Work one = step_work(c, 1, 1, 99);
  EXPECT_DOUBLE_EQ(one.bytes, 2 * weights + 100 * cache);
  EXPECT_DOUBLE_EQ(one.flops, 2 * weights + 32 * 4.0 * 100 * 4096);
  const Work eight = step_work(c, 8, 1, 99);
  EXPECT_DOUBLE_EQ(eight.bytes, 2 * weights + 8 * 100 * cache);
  EXPECT_DOUBLE_EQ(eight.flops, 8 * one.flops);
  // Tokens 1 .. 4 of a prompt see 1 + 2 + 3 + 4 positions.
  EXPECT_DOUBLE_EQ(attention_work(c, 1, 4, 0, 4).flops, 4.0 * 4096 * 10);
}

TEST(Work, InFp8HasHalfOfTheBytesAndArithmeticOfItsOwn) {
  const auto c = config_of("r1-distill-llama-8b");
  const double head = 4096.0 * 128256;
  const double layers = 32.0 * (4096.0 * 6144 + 4096.0 * 4096 + 3 * 4096.0 * 14336);
  const Work work = step_work(c, 1, 1, 99, {.fp8 = true, .cache_bytes = 2});
  EXPECT_DOUBLE_EQ(work.bytes, layers * (1 + 4.0 / 128) + 2 * head + 100 * 32 * 2 * 8 * 128 * 2.0);
  EXPECT_DOUBLE_EQ(work.fp8_flops, 2 * layers);
  EXPECT_DOUBLE_EQ(work.flops, 2 * head + 32 * 4.0 * 100 * 4096);
  EXPECT_DOUBLE_EQ(bound_of({0, 1e14, 2e14}, {"", 1e12, 1e14}).seconds, 2);
}

TEST(Work, OfExpertsIsThatOfThoseWhichAreChosen) {
  const auto c = config_of("deepseek-v2-lite");
  const double expert = 26 * 3 * 2048.0 * 1408 * 2;  // of all layers, in bytes
  const double one = step_work(c, 1, 1, 0).bytes;
  const double many = step_work(c, 1000, 1, 0).bytes - 999 * 27 * (2 * 512 + 64) * 4.0;
  EXPECT_NEAR(many - one, (64 - 6) * expert, 1e-6 * many);
}

TEST(Report, ALineSaysWhatFollowsFromTheTime) {
  const Measurement m{"cuda/NVIDIA H100 80GB HBM3", "m", "decode", 8, 2e-3, {3.35e9, 1e9}, 40e-6};
  const auto json = nlohmann::json::parse(json_line(m));
  EXPECT_DOUBLE_EQ(json["us"], 2000);
  EXPECT_DOUBLE_EQ(json["gb_per_s"], 1675);
  EXPECT_DOUBLE_EQ(json["tflop_per_s"], 0.5);
  EXPECT_DOUBLE_EQ(json["tokens_per_s"], 4000);
  EXPECT_DOUBLE_EQ(json["bound_us"], 1000);
  EXPECT_EQ(json["bound_by"], "memory");
  EXPECT_DOUBLE_EQ(json["share_of_bound"], 0.5);
  EXPECT_DOUBLE_EQ(json["host_us"], 40);
}

TEST(Report, LinesBecomeTables) {
  const Measurement known{"cuda/NVIDIA H100", "m", "decode", 1, 2e-3, {3.35e9, 1e9}, 40e-6};
  const Measurement unknown{"cuda/other", "m", "norm", 1, 5e-6, {1e6, 0}, 0};
  std::istringstream lines(json_line(known) + "\n" + json_line(unknown) + "\n");
  const auto text = tables(lines);
  ASSERT_TRUE(text.has_value());
  const std::string head =
      ":\n\n| what | rows | us | GB/s | TFLOP/s | tokens/s | bound, us | of the bound | host, us "
      "|\n"
      "|---|---|---|---|---|---|---|---|---|\n";
  EXPECT_EQ(*text, "m on cuda/NVIDIA H100" + head +
                       "| decode | 1 | 2000 | 1675 | 0.50 | 500 | 1000 (memory) | 50.0 % | 40.0 |\n"
                       "\nm on cuda/other" +
                       head + "| norm | 1 | 5.00 | 200 | 0.00 | 200000 |  |  |  |\n");
}

TEST(Report, ALineThatIsNoMeasurementIsNamed) {
  std::istringstream lines("{}\n");
  const auto text = tables(lines);
  ASSERT_FALSE(text.has_value());
  EXPECT_TRUE(text.error().message.starts_with("line 1: ")) << text.error().message;
}

}  // namespace
}  // namespace dsm::bench
