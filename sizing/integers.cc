#include "sizing/integers.h"

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "sizing/name_pattern.h"
#include "sizing/shape.h"

namespace dsm::sizing {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostPatterns = 64;
constexpr std::size_t kMostNames = 1 << 17;
// Characters of patterns times layers: below it, all names are looked at in less than a second, and
// usual ones in two milliseconds.
constexpr std::int64_t kMostMatching = 1 << 16;
constexpr int kGroup = 128;

// null counts as absent.
const Json* find(const Json& json, const char* key) {
  if (!json.is_object()) return nullptr;
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}
bool is(const Json& json, const char* key, const Json& value) {
  const Json* found = find(json, key);
  return found != nullptr && *found == value;
}
bool is_or_absent(const Json& json, const char* key, const Json& value) {
  return find(json, key) == nullptr || is(json, key, value);
}
bool empty(const Json& json, const char* key) {
  const Json* found = find(json, key);
  return found == nullptr || (!found->is_primitive() && found->empty());
}

std::unexpected<Error> unknown(const char* what) {
  return fail(ErrorKind::kNotFound,
              std::string("quantization_config has ") + what + ", whose sizes are not known here");
}

struct Module {
  Matrix matrix;
  const char* name;  // behind "model.layers.N."
};
constexpr std::array kModules = {Module{Matrix::kQuery, "self_attn.q_proj"},
                                 Module{Matrix::kQuery, "self_attn.q_b_proj"},
                                 Module{Matrix::kQueryLatent, "self_attn.q_a_proj"},
                                 Module{Matrix::kKey, "self_attn.k_proj"},
                                 Module{Matrix::kValue, "self_attn.v_proj"},
                                 Module{Matrix::kLatent, "self_attn.kv_a_proj_with_mqa"},
                                 Module{Matrix::kLatentUp, "self_attn.kv_b_proj"},
                                 Module{Matrix::kOutput, "self_attn.o_proj"},
                                 Module{Matrix::kGate, "mlp.gate_proj"},
                                 Module{Matrix::kUp, "mlp.up_proj"},
                                 Module{Matrix::kDown, "mlp.down_proj"},
                                 Module{Matrix::kSharedGate, "mlp.shared_experts.gate_proj"},
                                 Module{Matrix::kSharedUp, "mlp.shared_experts.up_proj"},
                                 Module{Matrix::kSharedDown, "mlp.shared_experts.down_proj"},
                                 Module{Matrix::kExpertGate, "mlp.experts.0.gate_proj"},
                                 Module{Matrix::kExpertUp, "mlp.experts.0.up_proj"},
                                 Module{Matrix::kExpertDown, "mlp.experts.0.down_proj"},
                                 Module{Matrix::kRouter, "mlp.gate"},
                                 Module{Matrix::kIndexQuery, "self_attn.indexer.wq_b"},
                                 Module{Matrix::kIndexKey, "self_attn.indexer.wk"},
                                 Module{Matrix::kIndexWeights, "self_attn.indexer.weights_proj"}};

bool of_experts(Matrix matrix) {
  return matrix >= Matrix::kSharedGate && matrix <= Matrix::kRouter;
}
bool of_dense_mlp(Matrix matrix) {
  return matrix >= Matrix::kGate && matrix <= Matrix::kDown;
}
// With a latent for queries q_b_proj, else q_proj. Other modules that a family has not are in no
// sum.
bool has_module(const Shape& s, std::int64_t layer, const Module& module) {
  if (module.matrix == Matrix::kQuery) {
    return (s.q_lora > 0) == (std::string_view(module.name) == "self_attn.q_b_proj");
  }
  return s.has_experts(layer) ? !of_dense_mlp(module.matrix) : !of_experts(module.matrix);
}

// Names and patterns of modules.
class Names {
 public:
  // Nothing: something in it is not known here.
  static std::optional<Names> read(const Json& list) {
    if (!list.is_array() || list.size() > kMostNames) return std::nullopt;
    Names made;
    for (const Json& entry : list) {
      if (!entry.is_string()) return std::nullopt;
      const auto& text = entry.get_ref<const std::string&>();
      if (!text.starts_with("re:")) {
        made.names_.insert(text);
        continue;
      }
      auto pattern = NamePattern::parse(std::string_view(text).substr(3));
      made.pattern_length_ += static_cast<std::int64_t>(text.size());
      if (!pattern || made.patterns_.size() == kMostPatterns) return std::nullopt;
      made.patterns_.push_back(std::move(*pattern));
    }
    return made;
  }
  bool has(const std::string& name) const {
    if (names_.contains(name)) return true;
    for (const NamePattern& pattern : patterns_) {
      if (pattern.matches(name)) return true;
    }
    return false;
  }
  // Of all patterns together: what a name costs.
  std::int64_t pattern_length() const { return pattern_length_; }
  // Classes of modules, as names without a dot are.
  bool has_class() const { return names_.contains("Linear"); }
  bool only_known_classes() const {
    for (const std::string& name : names_) {
      if (name.find('.') == std::string::npos && name != "Linear" && name != "lm_head")
        return false;
    }
    return true;
  }

 private:
  std::unordered_set<std::string> names_;
  std::vector<NamePattern> patterns_;
  std::int64_t pattern_length_ = 0;
};

// By targets and what is left out of them.
void mark(const Shape& s, const Names& targets, const Names& left_out, Integers& made) {
  const bool linear = targets.has_class();
  for (std::int64_t layer = 0; layer < s.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    for (const Module& module : kModules) {
      if (!has_module(s, layer, module)) continue;
      const std::string name = prefix + module.name;
      // A router is no linear module to who made the checkpoint.
      const bool named = linear && module.matrix != Matrix::kRouter;
      if ((named || targets.has(name)) && !left_out.has(name)) {
        made.layers[static_cast<std::size_t>(layer)] |= 1U << static_cast<unsigned>(module.matrix);
      }
    }
  }
  const std::string head = "lm_head";
  if ((linear || targets.has(head)) && !left_out.has(head)) made.head = true;
}

// In memory; 0: not of the weights that a worker takes.
int bits_of(const Json& weights) {
  if (!is_or_absent(weights, "type", "int")) return 0;
  if (is(weights, "actorder", "group") || is(weights, "actorder", "dynamic") ||
      is(weights, "actorder", true)) {
    return 0;
  }
  const bool channel = is(weights, "strategy", "channel") ||
                       (find(weights, "strategy") == nullptr && is(weights, "group_size", -1));
  const bool group =
      is_or_absent(weights, "strategy", "group") && is(weights, "group_size", kGroup);
  if (!channel && !group) return 0;
  const bool symmetric = is_or_absent(weights, "symmetric", true);
  if (!symmetric && !is(weights, "symmetric", false)) return 0;
  if (is(weights, "num_bits", 4)) return symmetric ? 4 : 8;
  return is(weights, "num_bits", 8) && symmetric ? 8 : 0;
}

Result<Integers> read_compressed(const Json& json, const Shape& shape, Integers made) {
  if (!is(json, "format", "pack-quantized") || !empty(json, "kv_cache_scheme")) {
    return unknown("another format than pack-quantized");
  }
  const Json none = Json::array();
  const Json* ignore = find(json, "ignore");
  const auto left_out = Names::read(ignore != nullptr ? *ignore : none);
  const Json* groups = find(json, "config_groups");
  if (!left_out) return unknown("a list of modules");
  if (groups == nullptr || !groups->is_object() || groups->empty() ||
      groups->size() > kMostPatterns) {
    return unknown("no groups of weights");
  }
  for (const auto& [name, group] : groups->items()) {
    const Json* weights = find(group, "weights");
    const int bits = weights == nullptr ? 0 : bits_of(*weights);
    if (bits == 0 || (made.bits != 0 && made.bits != bits) ||
        find(group, "input_activations") != nullptr) {
      return unknown("weights other than integers in groups of 128");
    }
    made.bits = bits;
    made.zeros = is(*weights, "symmetric", false);
    const Json* list = find(group, "targets");
    const auto targets = Names::read(list != nullptr ? *list : none);
    if (!targets || !targets->only_known_classes() ||
        shape.layers * (targets->pattern_length() + left_out->pattern_length()) > kMostMatching) {
      return unknown("a list of modules");
    }
    mark(shape, *targets, *left_out, made);
  }
  return made;
}

Result<Integers> read_gptq(const Json& json, const Shape& shape, Integers made) {
  const bool four = is(json, "bits", 4);
  made.zeros = four && is(json, "sym", false);
  if ((!four && !is(json, "bits", 8)) || (!made.zeros && !is(json, "sym", true)) ||
      !is_or_absent(json, "desc_act", false) ||
      (!is(json, "group_size", kGroup) && !is(json, "group_size", -1))) {
    return unknown("weights other than integers in groups of 128");
  }
  if (!empty(json, "dynamic")) return unknown("modules with options of their own");
  made.bits = four && !made.zeros ? 4 : 8;
  // Everything linear in layers, and the head where it is said.
  const auto linear = Names::read(Json::array({"Linear"}));
  auto left_out = Json::array({"re:.*indexer"});
  if (!is(json, "lm_head", true)) left_out.push_back("lm_head");
  const auto others = Names::read(left_out);
  if (linear && others) mark(shape, *linear, *others, made);
  return made;
}

// Modules whose names have one of the list's in them are left out, and routers, as they are of no
// linear class.
Result<Integers> read_awq(const Json& json, const Shape& shape, Integers made) {
  const bool gemm = is_or_absent(json, "version", "gemm") || is(json, "version", "GEMM");
  if (!gemm || !is(json, "bits", 4) || !is(json, "group_size", kGroup) ||
      !is(json, "zero_point", true)) {
    return unknown("weights other than integers in groups of 128");
  }
  auto list = Json::array({"re:.*indexer", "lm_head"});
  if (const Json* names = find(json, "modules_to_not_convert"); names != nullptr) {
    if (!names->is_array() || names->size() > kMostPatterns) return unknown("a list of modules");
    for (const Json& name : *names) {
      if (!name.is_string()) return unknown("a list of modules");
      std::string pattern = "re:.*";
      for (const char c : name.get_ref<const std::string&>()) {
        pattern += c == '.' ? std::string("\\.") : std::string(1, c);
      }
      list.push_back(std::move(pattern));
    }
  }
  const auto linear = Names::read(Json::array({"Linear"}));
  const auto others = Names::read(list);
  if (!linear || !others || shape.layers * others->pattern_length() > kMostMatching) {
    return unknown("a list of modules");
  }
  made.bits = 8;
  made.zeros = true;
  mark(shape, *linear, *others, made);
  return made;
}

}  // namespace

Result<Integers> parse_integers(const Json& config, const Shape& shape) {
  Integers made;
  made.layers.assign(static_cast<std::size_t>(shape.layers), 0U);
  const Json& json = config.at("quantization_config");
  Result<Integers> read = unknown("another method than fp8, compressed-tensors, gptq and awq");
  if (is(json, "quant_method", "compressed-tensors")) read = read_compressed(json, shape, made);
  if (is(json, "quant_method", "gptq")) read = read_gptq(json, shape, made);
  if (is(json, "quant_method", "awq")) read = read_awq(json, shape, made);
  // A head that is the embedding is none of these modules.
  if (read && is(config, "tie_word_embeddings", true)) read->head = false;
  return read;
}

}  // namespace dsm::sizing
