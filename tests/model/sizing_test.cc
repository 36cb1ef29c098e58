// The formulas of sizing/ against what the worker's loader and graph really allocate, to the byte,
// for every checkpoint of the repository and every way of running it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <utility>

#include "sizing/memory.h"
#include "tests/model/packed_writer.h"
#include "tests/model/whole_checkpoint.h"
#include "worker/device/cpu_backend.h"
#include "worker/model/attention.h"
#include "worker/model/head.h"
#include "worker/model/mlp.h"
#include "worker/model/mtp.h"
#include "worker/model/weights.h"

namespace dsm::model {
namespace {

using sizing::Device;
using sizing::Shape;

// The CPU's, counting what is asked of it.
class CountingBackend final : public device::Backend {
 public:
  std::int64_t taken() { return std::exchange(taken_, 0); }

  std::string_view name() const override { return inner_->name(); }
  void* allocate(std::size_t bytes) override {
    taken_ += static_cast<std::int64_t>(bytes);
    return inner_->allocate(bytes);
  }
  kernels::PackedMatrix reserve(std::span<const kernels::WeightPiece> pieces) override {
    const kernels::PackedMatrix packed = inner_->reserve(pieces);
    taken_ += static_cast<std::int64_t>(kernels::packed_bytes(packed.dtype, packed.n, packed.k));
    return packed;
  }
  void* allocate_cache(std::size_t bytes) override {
    taken_ += static_cast<std::int64_t>(bytes);
    return inner_->allocate_cache(bytes);
  }
  void* allocate_shared(std::size_t bytes) override {
    taken_ += static_cast<std::int64_t>(bytes);
    return inner_->allocate_shared(bytes);
  }
  device::SharedMemory share(std::size_t bytes) override { return inner_->share(bytes); }
  bool pack_panels(std::span<const kernels::WeightPiece> pieces, const kernels::PackedMatrix& into,
                   int begin, int end) override {
    return inner_->pack_panels(pieces, into, begin, end);
  }
  bool reaches_host() const override { return inner_->reaches_host(); }
  void write(void* to, const void* from, std::size_t bytes) override {
    inner_->write(to, from, bytes);
  }
  void parallel(int items, const std::function<void(int)>& work) override {
    inner_->parallel(items, work);
  }
  void wait() override { inner_->wait(); }
  void sleep() override { inner_->sleep(); }
  void wake() override { inner_->wake(); }
  void keep(device::List list) override { inner_->keep(list); }
  void stage(std::span<const device::List> lists,
             std::span<const kernels::AttentionItem> items) override {
    inner_->stage(lists, items);
  }
  bool records() const override { return inner_->records(); }
  void repeat(const device::RepeatKey& key, const std::function<void()>& operators) override {
    inner_->repeat(key, operators);
  }
  void copy(float* to, const float* from, std::size_t count) override {
    inner_->copy(to, from, count);
  }
  void clear(float* to, std::size_t count) override { inner_->clear(to, count); }
  void embedding(const kernels::EmbeddingParams& p) override { inner_->embedding(p); }
  void rms_norm(const kernels::RmsNormParams& p) override { inner_->rms_norm(p); }
  void quantise(const kernels::QuantiseParams& p) override { inner_->quantise(p); }
  void quantise_slots(const kernels::QuantiseParams& p,
                      const kernels::GroupExpertsParams& routing) override {
    inner_->quantise_slots(p, routing);
  }
  void linear(const kernels::LinearParams& p) override { inner_->linear(p); }
  void gate_up(const kernels::GateUpParams& p) override { inner_->gate_up(p); }
  void row_parallel(const kernels::RowParallelParams& p) override { inner_->row_parallel(p); }
  void tree_sum(const kernels::TreeSumParams& p) override { inner_->tree_sum(p); }
  void add_over_ranks(comm::Communicator& ranks, const device::RankSumParams& p) override {
    inner_->add_over_ranks(ranks, p);
  }
  void gather_over_ranks(comm::Communicator& ranks, const device::RankGatherParams& p) override {
    inner_->gather_over_ranks(ranks, p);
  }
  void gather_columns(comm::Communicator& ranks, const device::RankColumnsParams& p) override {
    inner_->gather_columns(ranks, p);
  }
  void kv_write(const kernels::KvWriteParams& p) override { inner_->kv_write(p); }
  void norm_heads(const kernels::NormHeadsParams& p) override { inner_->norm_heads(p); }
  void kv_write_heads(const kernels::KvWriteHeadsParams& p) override { inner_->kv_write_heads(p); }
  void latent_read(const kernels::LatentReadParams& p) override { inner_->latent_read(p); }
  void heads_expand(const kernels::HeadsExpandParams& p) override { inner_->heads_expand(p); }
  void rope_query(const kernels::RopeQueryParams& p) override { inner_->rope_query(p); }
  void index_write(const kernels::IndexWriteParams& p) override { inner_->index_write(p); }
  void index_select(const kernels::IndexSelectParams& p) override { inner_->index_select(p); }
  void attention(const kernels::AttentionParams& p) override { inner_->attention(p); }
  void router(const kernels::RouterParams& p) override { inner_->router(p); }
  void group_experts(const kernels::GroupExpertsParams& p) override { inner_->group_experts(p); }
  void choose(const kernels::ChooseParams& p) override { inner_->choose(p); }

 private:
  std::unique_ptr<device::Backend> inner_ = device::make_cpu_backend(1, kernels::best_ops());
  std::int64_t taken_ = 0;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

Shape shape_at(const std::string& path) {
  const auto shape = sizing::parse_shape(text_of(path), path);
  EXPECT_TRUE(shape) << shape.error().message;
  return shape.value_or(Shape{});
}

// What the two readers of config.json say of the same text.
void expect_same(const Shape& s, const ModelConfig& c) {
  EXPECT_EQ(s.model_type, c.model_type);
  EXPECT_EQ(s.vocab, c.vocab_size);
  EXPECT_EQ(s.hidden, c.hidden_size);
  EXPECT_EQ(s.layers, c.num_layers);
  EXPECT_EQ(s.max_positions, c.max_positions);
  EXPECT_EQ(s.fp8, c.quantization.has_value());
  EXPECT_EQ(s.integers.bits, c.integers ? c.integers->bits() : 0);
  EXPECT_EQ(s.tied, c.tied_embeddings);
  EXPECT_EQ(s.latent, c.attention == AttentionKind::kLatent);
  EXPECT_EQ(s.heads, c.num_heads);
  EXPECT_EQ(s.kv_heads, c.num_kv_heads);
  EXPECT_EQ(s.qkv_bias, c.qkv_bias);
  EXPECT_EQ(s.head_norms, c.head_norms);
  EXPECT_EQ(s.q_lora, c.q_lora_rank);
  EXPECT_EQ(s.kv_lora, c.kv_lora_rank);
  EXPECT_EQ(s.nope, c.qk_nope_head_dim);
  EXPECT_EQ(s.rope, c.qk_rope_head_dim);
  EXPECT_EQ(s.value, c.v_head_dim);
  EXPECT_EQ(s.index_heads, c.indexer ? c.indexer->heads : 0);
  EXPECT_EQ(s.index_head, c.indexer ? c.indexer->head_dim : 0);
  EXPECT_EQ(s.mlp, c.intermediate_size);
  EXPECT_EQ(s.expert, c.moe_intermediate_size);
  EXPECT_EQ(s.experts, c.num_experts);
  EXPECT_EQ(s.shared_experts, c.num_shared_experts);
  EXPECT_EQ(s.experts_per_token, c.experts_per_token);
  EXPECT_EQ(s.router_bias, c.num_experts > 0 && c.router == RouterKind::kSigmoidBias);
  EXPECT_EQ(s.mtp_layers, c.mtp_layers);
  for (int layer = 0; layer <= c.num_layers; ++layer) {
    EXPECT_EQ(s.has_experts(layer), c.has_experts(layer)) << layer;
  }
  for (const int ranks : {1, 2, 4, 8}) {
    EXPECT_EQ(sizing::check_cut(s, ranks).has_value(), check_tensor_parallel(c, ranks).has_value())
        << ranks;
  }
}

struct CacheType {
  kernels::DType dtype;
  sizing::KvType sized;
};
constexpr CacheType kCacheTypes[] = {{kernels::DType::kF32, sizing::KvType::kF32},
                                     {kernels::DType::kBF16, sizing::KvType::kBf16},
                                     {kernels::DType::kF8E4M3, sizing::KvType::kFp8}};

void expect_bytes(const std::string& dir, const ModelConfig& config, const WeightSlice& slice,
                  const CacheType& cache = kCacheTypes[0]) {
  const int bits = !slice.round_to ? 0 : *slice.round_to == kernels::DType::kInt8 ? 8 : 4;
  SCOPED_TRACE(std::to_string(slice.ranks) + (slice.mtp ? " ranks, drafts" : " ranks") +
               (slice.segmented ? "" : ", loose") +
               (slice.expert_parallel ? ", whole experts" : "") +
               (slice.data_parallel_attention ? ", whole attention" : "") + ", bits " +
               std::to_string(bits));
  const Shape shape = shape_at(dir + "/config.json");
  const sizing::WeightCut cut{.tensor = slice.ranks,
                              .drafts = slice.mtp,
                              .deterministic = slice.segmented,
                              .expert_parallel = slice.expert_parallel,
                              .data_parallel_attention = slice.data_parallel_attention,
                              .weight_bits = bits};
  constexpr int kTokens = 40;

  CountingBackend backend;
  const auto checkpoint = Checkpoint::open(dir);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto weights =
      load_weights(*checkpoint, config, slice, backend, [](std::int64_t, std::int64_t) {});
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(backend.taken(), sizing::weight_bytes(shape, cut, Device::kCpu));

  const int blocks = (config.max_positions + 63) / 64;
  Step step(config,
            {.rank = slice.rank,
             .ranks = slice.ranks,
             .threads = 1,
             .tokens = kTokens,
             .expert_parallel = slice.expert_parallel,
             .data_parallel_attention = slice.data_parallel_attention},
            backend);
  Attention attention = make_attention(step, config.num_layers + (slice.mtp ? 1 : 0),
                                       {blocks, cache.dtype}, slice.expands);
  Mlp mlp(step);
  if (slice.mtp) const Mtp mtp(step, *weights, attention, mlp);
  const Head head(step, weights->head, config.vocab_size);
  const bool first = slice.rank == 0;
  // Logits for the host are taken when they are asked for.
  const std::int64_t for_host = first ? std::int64_t{kTokens} * config.vocab_size * 4 : 0;
  const sizing::StepSize size{.batch_tokens = kTokens};
  EXPECT_EQ(
      backend.taken() + for_host,
      sizing::scratch_bytes(shape, cut, size, Device::kCpu) -
          sizing::operator_bytes(shape, cut, size, Device::kCpu) +
          sizing::logit_bytes(shape, cut, size, Device::kCpu, first) +
          blocks * sizing::kBlockTokens * sizing::cache_bytes_per_token(shape, cut, cache.sized));
}

class Sizing : public testing::TestWithParam<const char*> {};

TEST_P(Sizing, is_what_is_allocated) {
  const std::string dir = GetParam();
  const auto config = load_model_config(dir);
  ASSERT_TRUE(config) << config.error().message;
  expect_same(shape_at(dir + "/config.json"), *config);
  for (const int ranks : {1, 2, 4, 8}) {
    if (!check_tensor_parallel(*config, ranks)) continue;
    for (const bool exact : {true, false}) {
      // The last rank: it is as large as the others.
      WeightSlice slice{.rank = ranks - 1, .ranks = ranks, .segmented = exact, .expands = !exact};
      expect_bytes(dir, *config, slice);
      slice.round_to = exact ? kernels::DType::kInt4 : kernels::DType::kInt8;
      expect_bytes(dir, *config, slice);
      if (!check_data_parallel_attention(*config)) continue;
      slice.data_parallel_attention = true;
      expect_bytes(dir, *config, slice);
    }
    if (!check_expert_parallel(*config, ranks, false)) continue;
    WeightSlice slice{.rank = ranks - 1,
                      .ranks = ranks,
                      .segmented = false,
                      .expands = true,
                      .expert_parallel = true};
    expect_bytes(dir, *config, slice);
    slice.round_to = kernels::DType::kInt8;
    expect_bytes(dir, *config, slice);
  }
}

TEST_P(Sizing, of_every_type_of_the_cache_is_what_is_allocated) {
  const std::string dir = GetParam();
  const auto config = load_model_config(dir);
  ASSERT_TRUE(config) << config.error().message;
  for (const CacheType& cache : kCacheTypes) expect_bytes(dir, *config, {.ranks = 1}, cache);
}

INSTANTIATE_TEST_SUITE_P(
    Checkpoints, Sizing,
    testing::Values("models/deepseek-tiny", "tests/goldens/fp8-tiny",
                    "tests/goldens/families/llama", "tests/goldens/families/qwen2",
                    "tests/goldens/families/qwen3", "tests/goldens/families/deepseek_v2_lite",
                    "tests/goldens/families/deepseek_v2",
                    "tests/goldens/families/deepseek_v3_small",
                    "tests/goldens/families/deepseek_v3", "tests/goldens/families/deepseek_v32"),
    [](const auto& checkpoint) {
      std::string name = checkpoint.param;
      name = name.substr(name.rfind('/') + 1);
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

TEST(SizingOfDrafts, is_what_is_allocated) {
  const auto config = load_model_config("models/deepseek-tiny");
  ASSERT_TRUE(config) << config.error().message;
  for (const int ranks : {1, 4}) {
    expect_bytes("models/deepseek-tiny", *config, {.rank = 0, .ranks = ranks, .mtp = true});
  }
}

// Some of its matrices in integers, as the configuration says by names and patterns.
TEST_P(Sizing, of_weights_in_integers_is_what_is_allocated) {
  const std::string from = GetParam();
  if (load_model_config(from)->quantization) GTEST_SKIP() << "the writer packs other weights";
  const struct {
    int form;
    const char* ignored;  // a pattern
    std::function<bool(const std::string&)> packed;
  } cases[] = {{0, "re:.*(lm_head|kv_b_proj|indexer)",
                [](const auto& name) {
                  return name.find("kv_b_proj") == std::string::npos &&
                         name.find("indexer") == std::string::npos;
                }},
               {1, "re:.*(self_attn|lm_head)",
                [](const auto& name) { return name.find("self_attn") == std::string::npos; }},
               {2, "re:.*(v_proj|up_proj)$|.*indexer", [](const auto& name) {
                  return name.find("v_proj.") == std::string::npos &&
                         name.find("up_proj.") == std::string::npos &&
                         name.find("indexer") == std::string::npos;
                }}};
  for (const auto& [form, ignored, packed] : cases) {
    TestTensors tensors = read_tensors(from);
    auto json = read_config(from);
    const std::string drafts =
        "model.layers." + std::to_string(json["num_hidden_layers"].get<int>()) + ".";
    for (const auto& [name, tensor] : TestTensors(tensors)) {
      const bool matrix =
          name.ends_with("_proj.weight") || name.ends_with("_with_mqa.weight") ||
          name.find("indexer.w") != std::string::npos ||
          (name == "lm_head.weight" && std::string(ignored).find("lm_head") == std::string::npos);
      if (!matrix || name.starts_with(drafts) || !packed(name)) continue;
      pack_weight(tensors, name, values_of(tensors, name), kPackedForms[form]);
    }
    json["quantization_config"] = quantization_config(kPackedForms[form]);
    json["quantization_config"]["ignore"] = {ignored};
    const TestDir dir;
    dir.write("config.json", json.dump());
    dir.write("model.safetensors", safetensors_bytes(tensors));
    const auto config = load_model_config(dir.path());
    ASSERT_TRUE(config) << config.error().message;
    expect_same(shape_at(dir.path() / "config.json"), *config);
    for (const int ranks : {1, 2}) {
      if (!check_tensor_parallel(*config, ranks)) continue;
      WeightSlice slice{.rank = ranks - 1, .ranks = ranks};
      expect_bytes(dir.path(), *config, slice);
      slice.round_to = config->integers.value().dtype;
      expect_bytes(dir.path(), *config, slice);
      slice.round_to.reset();
      slice.segmented = false;
      slice.expands = true;
      expect_bytes(dir.path(), *config, slice);
    }
  }
}

TEST(SizingOfPublicModels, reads_what_the_worker_reads) {
  for (const char* model : {"deepseek-llm-7b", "r1-distill-qwen-7b", "r1-0528-qwen3-8b",
                            "llama-2-13b", "deepseek-v2-lite", "r1-distill-qwen-32b",
                            "r1-distill-llama-70b", "deepseek-v2", "deepseek-v3"}) {
    SCOPED_TRACE(model);
    const std::string path = std::string("sizing/models/") + model + ".json";
    const auto config = parse_model_config(text_of(path), path);
    ASSERT_TRUE(config) << config.error().message;
    expect_same(shape_at(path), *config);
  }
}

}  // namespace
}  // namespace dsm::model
