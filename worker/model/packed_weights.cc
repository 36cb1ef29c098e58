#include "worker/model/packed_weights.h"

#include <cstring>

namespace dsm::model {
namespace {

using Layout = IntegerWeights::Layout;

constexpr std::string_view kWeight = "weight";

std::int64_t blocks(std::int64_t extent, std::int64_t block) {
  return (extent + block - 1) / block;
}

// "X." of "X.weight".
std::string module_of(const std::string& name) {
  return name.ends_with(kWeight) ? name.substr(0, name.size() - kWeight.size()) : name + ".";
}

std::string words_name(const IntegerWeights& kind, const std::string& name) {
  return module_of(name) +
         (kind.layout == Layout::kCompressedTensors ? "weight_packed" : "qweight");
}

template <class T>
T load(const TensorView& view, std::int64_t at) {
  T value;
  std::memcpy(&value, view.bytes.data() + at * static_cast<std::int64_t>(sizeof(T)), sizeof value);
  return value;
}

// Asks for tensors one after the other; the first mistake is kept.
class Finder {
 public:
  explicit Finder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  TensorView words(const std::string& name, std::int64_t rows, std::int64_t columns) {
    return keep(checkpoint_.get_stored(name, {"I32"}, {rows, columns}));
  }
  // Of any type that a scale may have.
  TensorView scales(const std::string& name, std::int64_t rows, std::int64_t columns) {
    return keep(checkpoint_.get_stored(name, {"F16", "BF16", "F32"}, {rows, columns}));
  }
  TensorView list(const std::string& name, std::int64_t size) {
    return keep(checkpoint_.get_stored(name, {"I32", "I64"}, {size}));
  }
  TensorView list_if_there(const std::string& name, std::int64_t size) {
    return checkpoint_.has(name) ? list(name, size) : TensorView{};
  }
  void refuse(const std::string& name, const char* why) {
    if (checkpoint_.has(name)) complain("tensor " + name + why);
  }
  void complain(const std::string& mistake) {
    if (ok_) ok_ = fail(ErrorKind::kInvalid, mistake);
  }
  const Status& ok() const { return ok_; }

 private:
  TensorView keep(Result<TensorView> view) {
    if (view) return *view;
    if (ok_) ok_ = std::unexpected(view.error());
    return {};
  }

  const Checkpoint& checkpoint_;
  Status ok_;
};

// [outputs, inputs], words along the inputs.
void find_compressed(Finder& find, const std::string& module, std::int64_t outputs,
                     std::int64_t inputs, PackedWeight& w) {
  const int per_word = 32 / w.kind.bits();
  const std::int64_t groups = w.kind.group > 0 ? blocks(inputs, w.kind.group) : 1;
  if (w.kind.zeros) {
    w.zeros = find.words(module + "weight_zero_point", blocks(outputs, per_word), groups);
  } else {
    find.refuse(module + "weight_zero_point",
                ": symmetric integers, as config.json says these are, have no zero points");
  }
  const auto words = find.words(module + "weight_packed", outputs, blocks(inputs, per_word));
  const auto scales = find.scales(module + "weight_scale", outputs, groups);
  w.shape = find.list_if_there(module + "weight_shape", 2);
  w.order = find.list_if_there(module + "weight_g_idx", inputs);
  w.piece = {.data = words.bytes.data(),
             .dtype = w.kind.dtype,
             .n_stride = inputs,
             .k_stride = 1,
             .n = static_cast<int>(outputs),
             .k = static_cast<int>(inputs),
             .scales = {.data = scales.bytes.data(),
                        .dtype = scales.dtype,
                        .block_rows = 1,
                        .block_columns = w.kind.group > 0 ? w.kind.group : static_cast<int>(inputs),
                        .columns = inputs}};
  if (w.kind.zeros) {
    w.piece.zeros = {.data = w.zeros.bytes.data(), .output_words = groups, .block_words = 1};
  }
}

// [inputs, outputs], words along the inputs (GPTQ) or the outputs (AWQ).
void find_by_inputs(Finder& find, const std::string& module, std::int64_t outputs,
                    std::int64_t inputs, PackedWeight& w) {
  const int per_word = 32 / w.kind.bits();
  const bool awq = w.kind.layout == Layout::kAwq;
  if (outputs % per_word != 0 || (!awq && inputs % per_word != 0) || inputs < 2) {
    return find.complain("tensor " + module + "qweight: " + (awq ? "AWQ" : "GPTQ") +
                         "'s words hold " + std::to_string(per_word) +
                         " numbers, which do not divide " + std::to_string(outputs) + " outputs" +
                         (awq ? "" : " or " + std::to_string(inputs) + " inputs"));
  }
  const std::int64_t groups = w.kind.group > 0 ? blocks(inputs, w.kind.group) : 1;
  const auto words = awq ? find.words(module + "qweight", inputs, outputs / per_word)
                         : find.words(module + "qweight", inputs / per_word, outputs);
  const auto scales = find.scales(module + "scales", groups, outputs);
  w.zeros = find.words(module + "qzeros", groups, outputs / per_word);
  if (!awq) w.order = find.list_if_there(module + "g_idx", inputs);
  w.piece = {.data = words.bytes.data(),
             .dtype = w.kind.dtype,
             .n_stride = 1,
             .k_stride = outputs,
             .n = static_cast<int>(outputs),
             .k = static_cast<int>(inputs),
             .scales = {.data = scales.bytes.data(),
                        .dtype = scales.dtype,
                        .block_rows = w.kind.group > 0 ? w.kind.group : static_cast<int>(inputs),
                        .block_columns = 1,
                        .columns = outputs},
             .outputs_in_words = awq};
  if (w.kind.zeros) {
    w.piece.zeros = {.data = w.zeros.bytes.data(),
                     .output_words = 1,
                     .block_words = outputs / per_word,
                     .less = w.kind.zeros_less_one ? 1 : 0};
  }
}

std::int64_t number_at(const TensorView& view, std::int64_t at) {
  return view.unsupported == "I64" ? load<std::int64_t>(view, at) : load<std::int32_t>(view, at);
}

Status check_shape(const PackedWeight& w) {
  if (w.shape.bytes.empty()) return {};
  const std::int64_t outputs = number_at(w.shape, 0);
  const std::int64_t inputs = number_at(w.shape, 1);
  if (outputs == w.piece.n && inputs == w.piece.k) return {};
  return fail(ErrorKind::kInvalid, "says [" + std::to_string(outputs) + ", " +
                                       std::to_string(inputs) + "], config.json needs [" +
                                       std::to_string(w.piece.n) + ", " +
                                       std::to_string(w.piece.k) + "]");
}

Status check_order(const PackedWeight& w) {
  if (w.order.bytes.empty()) return {};
  for (std::int64_t i = 0; i < w.piece.k; ++i) {
    const std::int64_t group = number_at(w.order, i);
    const std::int64_t stands = w.kind.group > 0 ? i / w.kind.group : 0;
    if (group == stands) continue;
    return fail(ErrorKind::kInvalid,
                "puts input " + std::to_string(i) + " into group " + std::to_string(group) +
                    ", not " + std::to_string(stands) +
                    ": inputs that share a scale must stand together; take a checkpoint that was "
                    "made without desc_act (actorder group)");
  }
  return {};
}

// The older GPTQ writes 15 for a zero point of 0, of which some readers make 16, and which its
// first writers let run over into the neighbours.
Status check_zeros_less_one(const PackedWeight& w) {
  const auto count = static_cast<std::int64_t>(w.zeros.bytes.size());
  const std::int64_t across = w.piece.n / 2;
  for (std::int64_t at = 0; at < count; ++at) {
    const auto byte = std::to_integer<int>(w.zeros.bytes[static_cast<std::size_t>(at)]);
    if ((byte & 15) != 15 && byte >> 4 != 15) continue;
    const int odd = (byte & 15) != 15 ? 1 : 0;
    return fail(ErrorKind::kInvalid,
                "has 15 for output " + std::to_string(at % across * 2 + odd) + " of group " +
                    std::to_string(at / across) +
                    ": as a zero point less one that is 0 to some and 16 to others; take a "
                    "checkpoint in the format gptq_v2");
  }
  return {};
}

Status check_zeros(const PackedWeight& w) {
  if (w.kind.zeros) return w.kind.zeros_less_one ? check_zeros_less_one(w) : Status{};
  const int bits = w.kind.bits();
  const int per_word = 32 / bits;
  std::uint32_t wanted = 0;
  for (int i = 0; i < per_word; ++i) {
    wanted |= static_cast<std::uint32_t>(w.kind.stored_zero) << (i * bits);
  }
  const auto count = static_cast<std::int64_t>(w.zeros.bytes.size() / sizeof(std::uint32_t));
  for (std::int64_t at = 0; at < count; ++at) {
    const auto word = load<std::uint32_t>(w.zeros, at);
    if (word == wanted) continue;
    int place = 0;
    const auto code = [&](std::uint32_t of) {
      return static_cast<int>(of >> (place * bits) & ((1U << bits) - 1));
    };
    while (code(word) == w.kind.stored_zero) ++place;
    const std::int64_t across = w.piece.n / per_word;
    return fail(ErrorKind::kInvalid,
                "has " + std::to_string(code(word)) + " for output " +
                    std::to_string(at % across * per_word + place) + " of group " +
                    std::to_string(at / across) + ", symmetric integers have " +
                    std::to_string(w.kind.stored_zero) + ", and config.json says that these are");
  }
  return {};
}

}  // namespace

bool has_packed(const Checkpoint& checkpoint, const IntegerWeights& kind, const std::string& name) {
  return checkpoint.has(words_name(kind, name));
}

Result<PackedWeight> packed_weight(const Checkpoint& checkpoint, const IntegerWeights& kind,
                                   const std::string& name, std::int64_t outputs,
                                   std::int64_t inputs) {
  Finder find(checkpoint);
  find.refuse(name,
              (" stands beside " + words_name(kind, name) + ", and only one can hold").c_str());
  PackedWeight w{.piece = {}, .kind = kind, .name = name, .shape = {}, .order = {}, .zeros = {}};
  if (kind.layout == Layout::kCompressedTensors) {
    find_compressed(find, module_of(name), outputs, inputs, w);
  } else {
    find_by_inputs(find, module_of(name), outputs, inputs, w);
  }
  if (!find.ok()) return std::unexpected(find.ok().error());
  return w;
}

Status check_values(const Checkpoint& checkpoint, const PackedWeight& w) {
  const auto named = [&](const TensorView& view, const Status& checked) -> Status {
    if (checked) return {};
    return fail(checked.error().kind,
                checkpoint.owner_of(view.bytes.data()) + " " + checked.error().message);
  };
  if (auto ok = named(w.shape, check_shape(w)); !ok) return ok;
  if (auto ok = named(w.order, check_order(w)); !ok) return ok;
  return named(w.zeros, check_zeros(w));
}

}  // namespace dsm::model
