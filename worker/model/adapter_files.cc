#include "worker/model/adapter_files.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/cpu/pack.h"

namespace dsm::model {
namespace {

using kernels::DType;

constexpr std::size_t kLongestQuote = 120;
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";

struct Shape {
  int outputs = 0;
  int inputs = 0;
};
using Modules = std::map<std::string, Shape, std::less<>>;

// The linears of one layer that may have an adapter. Not kv_b_proj, which the graph has taken apart
// into queries and values, not the router, and not the experts that a router chooses.
Modules modules_of(const ModelConfig& c, int layer) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const std::string self = prefix + "self_attn.";
  const int hidden = c.hidden_size;
  Modules all;
  all[self + "o_proj"] = {hidden, c.num_heads * c.v_head_dim};
  if (c.attention == AttentionKind::kGrouped) {
    all[self + "q_proj"] = {c.num_heads * c.v_head_dim, hidden};
    all[self + "k_proj"] = all[self + "v_proj"] = {c.num_kv_heads * c.v_head_dim, hidden};
  } else {
    all[self + "kv_a_proj_with_mqa"] = {c.kv_lora_rank + c.qk_rope_head_dim, hidden};
    const int queries = c.num_heads * c.qk_head_dim();
    if (c.q_lora_rank > 0) {
      all[self + "q_a_proj"] = {c.q_lora_rank, hidden};
      all[self + "q_b_proj"] = {queries, c.q_lora_rank};
    } else {
      all[self + "q_proj"] = {queries, hidden};
    }
  }
  const bool experts = c.has_experts(layer);
  const std::string mlp = prefix + (experts ? "mlp.shared_experts." : "mlp.");
  const int width = experts ? c.shared_width() : c.intermediate_size;
  all[mlp + "gate_proj"] = all[mlp + "up_proj"] = {width, hidden};
  all[mlp + "down_proj"] = {hidden, width};
  return all;
}

Modules modules_of(const ModelConfig& c) {
  Modules all;
  for (int i = 0; i < c.num_layers; ++i) all.merge(modules_of(c, i));
  return all;
}

std::string shortened(std::string_view name) {
  return std::string(name.substr(0, kLongestQuote)) + (name.size() > kLongestQuote ? "..." : "");
}

std::string list_of(const Modules& modules) {
  std::set<std::string> names;
  for (const auto& [module, shape] : modules) names.insert(module.substr(module.rfind('.') + 1));
  std::string list;
  for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

// What is wrong with a tensor that shall have this shape; empty: nothing.
std::string complaint(const TensorView& view, std::int64_t rows, std::int64_t columns) {
  if (!view.unsupported.empty() || view.dtype == DType::kF8E4M3 || view.dtype == DType::kF8E8M0) {
    return "has another dtype than F32, F16 or BF16";
  }
  if (view.shape != std::vector<std::int64_t>{rows, columns}) {
    return "does not have the shape [" + std::to_string(rows) + ", " + std::to_string(columns) +
           "] that r and the model's config.json give it";
  }
  return "";
}

bool all_numbers(const TensorView& view) {
  std::vector<float> values(static_cast<std::size_t>(view.shape[0] * view.shape[1]));
  kernels::to_float(view.bytes.data(), view.dtype, static_cast<std::int64_t>(values.size()),
                    values.data());
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

// The tensors by the linear to which they belong.
Result<AdapterPairs> pair_up(const SafetensorsFile& file, const Modules& modules, int rank) {
  AdapterPairs pairs;
  for (const auto& [name, view] : file.tensors()) {
    const std::string tensor = "tensor " + shortened(name) + " ";
    const auto wrong = [&tensor](const std::string& what) {
      return fail(ErrorKind::kInvalid, tensor + what);
    };
    const bool is_a = name.ends_with(kA);
    if (!name.starts_with(kPrefix) || (!is_a && !name.ends_with(kB))) {
      return wrong("is no part of a LoRA adapter of linear layers");
    }
    const std::string module =
        name.substr(kPrefix.size(), name.size() - kPrefix.size() - kA.size());
    const auto found = modules.find(module);
    if (found == modules.end()) {
      return wrong("belongs to a layer that cannot have an adapter here; of this model " +
                   list_of(modules) + " can, of experts the shared ones alone");
    }
    const auto [outputs, inputs] = found->second;
    const std::string why = is_a ? complaint(view, rank, inputs) : complaint(view, outputs, rank);
    if (!why.empty()) return wrong(why);
    AdapterPair& pair = pairs[module];
    (is_a ? pair.a : pair.b) = view;
  }
  return pairs;
}

// Nothing is missing, and all weights are numbers.
Status check_whole(const AdapterPairs& pairs, const std::vector<std::string>& targets) {
  const auto wrong = [](const std::string& what) { return fail(ErrorKind::kInvalid, what); };
  if (pairs.empty()) return wrong("holds no tensors");
  for (const auto& [module, pair] : pairs) {
    if (pair.a.shape.empty() || pair.b.shape.empty()) {
      return wrong("tensor " + std::string(kPrefix) + module +
                   std::string(pair.a.shape.empty() ? kA : kB) + " is missing");
    }
    if (!all_numbers(pair.a) || !all_numbers(pair.b)) {
      return wrong("a weight of " + module + " is not a number");
    }
  }
  for (const std::string& target : targets) {
    const bool hit = std::ranges::any_of(pairs, [&](const auto& entry) {
      return entry.first == target || entry.first.ends_with("." + target);
    });
    if (!hit)
      return wrong("has no tensors of " + shortened(target) + ", one of the target_modules");
  }
  return {};
}

}  // namespace

Result<AdapterFiles> AdapterFiles::open(const std::filesystem::path& dir, const ModelConfig& model,
                                        int max_rank) {
  auto config = load_adapter_config(dir);
  if (!config) return std::unexpected(config.error());
  if (config->rank > max_rank) {
    return fail(ErrorKind::kInvalid, (dir / "adapter_config.json").string() + ": r is " +
                                         std::to_string(config->rank) +
                                         ", more than --max-lora-rank " + std::to_string(max_rank));
  }
  const std::string name = (dir / "adapter_model.safetensors").string();
  auto file = SafetensorsFile::open(name);
  if (!file) return std::unexpected(file.error());
  auto pairs = pair_up(*file, modules_of(model), config->rank);
  if (!pairs) return wrap(pairs.error(), name);
  if (auto whole = check_whole(*pairs, config->targets); !whole) return wrap(whole.error(), name);
  AdapterFiles files;
  files.config_ = std::move(*config);
  files.tensors_ = std::make_shared<const SafetensorsFile>(std::move(*file));
  files.pairs_ = std::move(*pairs);
  return files;
}

const AdapterPair* AdapterFiles::find(std::string_view module) const {
  const auto found = pairs_.find(module);
  return found == pairs_.end() ? nullptr : &found->second;
}

}  // namespace dsm::model
