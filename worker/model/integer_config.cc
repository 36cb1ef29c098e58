#include "worker/model/integer_config.h"

#include <array>
#include <optional>

namespace dsm::model::config_detail {
namespace {

constexpr const char* kPrefix = "quantization_config.";
constexpr std::size_t kMostGroups = 64;
constexpr std::size_t kLongestName = 40;

constexpr const char* kWhyNoZeros =
    " is not supported with 8 bits: a number less its zero point would need 9; take a symmetric "
    "checkpoint, one of 4 bits, or one in BF16 with INT8, which rounds it at load";
constexpr const char* kWhyNoOrder =
    " is not supported: inputs that share a scale must stand together; take a checkpoint that was "
    "made without";

// With zero points, whose type here is that of what is left.
void have_zeros(IntegerWeights& made, const std::string& option) {
  need(made.bits() == 4, "option " + option + kWhyNoZeros);
  made.zeros = true;
  made.dtype = kernels::DType::kInt8;
}

kernels::DType integers_of(const Fields& fields, const char* key) {
  const int bits = fields.integer(key, 1, 64);
  need(bits == 4 || bits == 8, "option " + fields.name_of(key) + " = " + std::to_string(bits) +
                                   " is not supported, only 4 or 8");
  return bits == 4 ? kernels::DType::kInt4 : kernels::DType::kInt8;
}

// Absent, null, or with nothing in it.
void need_nothing(const Fields& fields, const char* key, const char* why) {
  if (!fields.has(key)) return;
  const Json& value = fields.at(key);
  const bool empty = (value.is_object() || value.is_array()) && value.empty();
  need(empty, "option " + fields.name_of(key) + " is not supported: " + why);
}

void need_order(const Fields& weights) {
  if (!weights.has("actorder")) return;
  const Json& order = weights.at("actorder");
  // "static" and its other name change how the integers were found, not how they stand.
  const bool stands = order == false || order == "static" || order == "weight";
  const bool known = order == true || order == "group" || order == "dynamic";
  need(stands || known, "field " + weights.name_of("actorder") + " is no known order");
  need(stands, "option " + weights.name_of("actorder") + " = " + order.dump() + kWhyNoOrder);
}

// Inputs that have one scale, 0: all.
int read_strategy(const Fields& weights) {
  const int size = weights.integer_or("group_size", -1, kMaxDimension, 0);
  std::string strategy = size > 0 ? "group" : size == -1 ? "channel" : "tensor";
  if (weights.has("strategy")) {
    strategy = std::array{"group", "channel"}[weights.one_of("strategy", {"group", "channel"})];
  }
  need(strategy != "tensor", "field " + weights.name_of("strategy") + " is missing");
  if (strategy == "channel") {
    need(size <= 0, "option " + weights.name_of("group_size") + " is for strategy group");
    return 0;
  }
  weights.only("group_size", 128);
  return size;
}

IntegerWeights read_group(const Json& group, const std::string& prefix) {
  need(group.is_object(), "field " + prefix.substr(0, prefix.size() - 1) + " is not an object");
  const Fields fields(group, prefix);
  fields.only_if_said("format", "pack-quantized");
  for (const char* key : {"input_activations", "output_activations"}) {
    need(!fields.has(key),
         "option " + fields.name_of(key) + " is not supported: only weights may be integers");
  }
  const Json& json = fields.at("weights");
  need(json.is_object(), "field " + fields.name_of("weights") + " is not an object");
  const Fields weights(json, prefix + "weights.");
  weights.only_if_said("type", "int");
  weights.only_if_said("dynamic", false);
  need_order(weights);
  IntegerWeights made{.layout = IntegerWeights::Layout::kCompressedTensors,
                      .dtype = integers_of(weights, "num_bits"),
                      .group = read_strategy(weights)};
  if (!weights.boolean_or("symmetric", true)) {
    have_zeros(made, weights.name_of("symmetric") + " = false");
  }
  return made;
}

}  // namespace

IntegerWeights read_compressed_tensors(const Json& json) {
  const Fields fields(json, kPrefix);
  fields.only("format", "pack-quantized");
  need_nothing(fields, "kv_cache_scheme", "the type of the KV cache is the server's to choose");
  need_nothing(fields, "transform_config", "inputs would have to be turned before products");
  if (fields.has("sparsity_config") && !fields.at("sparsity_config").empty()) {
    const Json& sparsity = fields.at("sparsity_config");
    need(sparsity.is_object(), std::string("field ") + kPrefix + "sparsity_config is no object");
    Fields(sparsity, std::string(kPrefix) + "sparsity_config.").only("format", "dense");
  }
  const Json& groups = fields.at("config_groups");
  need(groups.is_object() && !groups.empty() && groups.size() <= kMostGroups,
       std::string("field ") + kPrefix + "config_groups is not an object of 1 to " +
           std::to_string(kMostGroups) + " groups");
  std::optional<IntegerWeights> all;
  for (const auto& [name, group] : groups.items()) {
    const IntegerWeights read = read_group(
        group, std::string(kPrefix) + "config_groups." + name.substr(0, kLongestName) + ".");
    need(!all || *all == read, std::string("option ") + kPrefix +
                                   "config_groups with several kinds of weights is not supported");
    all = read;
  }
  return all.value_or(IntegerWeights{});
}

IntegerWeights read_gptq(const Json& json) {
  const Fields fields(json, kPrefix);
  IntegerWeights made{.layout = IntegerWeights::Layout::kGptq,
                      .dtype = integers_of(fields, "bits")};
  if (fields.integer("group_size", -1) != -1) {
    fields.only("group_size", 128);
    made.group = 128;
  }
  if (!fields.boolean("sym")) have_zeros(made, fields.name_of("sym") + " = false");
  need(!fields.boolean_or("desc_act", false),
       "option " + fields.name_of("desc_act") + " = true" + kWhyNoOrder);
  fields.only_if_said("is_marlin_format", false);
  fields.only_if_said("pack_dtype", "int32");
  for (const char* key : {"rotation", "adapter"}) fields.refuse(key);
  // The older format has zero points less one. One key or the other says which it is.
  bool less_one = true;
  for (const char* key : {"checkpoint_format", "format"}) {
    if (fields.has(key)) less_one = fields.one_of(key, {"gptq", "gptq_v2"}) == 0;
  }
  if (made.zeros) {
    made.zeros_less_one = less_one;
  } else {
    made.stored_zero = (1 << (made.bits() - 1)) - (less_one ? 1 : 0);
  }
  return made;
}

IntegerWeights read_awq(const Json& json) {
  const Fields fields(json, kPrefix);
  fields.only("bits", 4);
  fields.only("group_size", 128);
  fields.only("zero_point", true);
  // The others lay words out for a kernel of their own. It is written either way.
  if (fields.has("version")) fields.one_of("version", {"gemm", "GEMM"});
  IntegerWeights made{.layout = IntegerWeights::Layout::kAwq, .group = 128};
  have_zeros(made, fields.name_of("zero_point"));
  return made;
}

}  // namespace dsm::model::config_detail
