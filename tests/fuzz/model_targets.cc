// Files of a checkpoint from anywhere: refused with a sentence, or used within bounds.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/fuzz/fuzzer.h"
#include "worker/model/adapter_config.h"
#include "worker/model/config.h"
#include "worker/model/manifest.h"
#include "worker/model/safetensors.h"

namespace {

using namespace dsm;
using fuzz::expect;
namespace fs = std::filesystem;

// One folder for the whole run, in memory where the system has such a place; removed at the end.
class Folder {
 public:
  Folder()
      : path_((fs::is_directory("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path()) /
              ("dsm-fuzz-" + std::to_string(::getpid()))) {
    fs::create_directory(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const fs::path& path() const { return path_; }
  void write(const char* name, std::string_view bytes) const {
    std::ofstream(path_ / name, std::ios::binary | std::ios::trunc) << bytes;
  }

 private:
  fs::path path_;
};

const Folder& folder() {
  static const Folder kOnly;
  return kOnly;
}

void expect_sentence(const Error& error, std::string_view file) {
  expect(error.message.find(file) != std::string::npos, "the message names the file");
  expect(error.message.size() < 1000, "the message is short");
}

bool safetensors(std::string_view input) {
  folder().write("x.safetensors", input);
  const auto file = model::SafetensorsFile::open(folder().path() / "x.safetensors");
  if (!file) {
    expect_sentence(file.error(), "x.safetensors");
    return false;
  }
  std::size_t bytes = 0;
  unsigned sum = 0;  // the sanitizer sees a read outside of the mapping
  for (const auto& [name, view] : file->tensors()) {
    bytes += view.bytes.size();
    for (const std::byte byte : view.bytes) sum += std::to_integer<unsigned>(byte);
    if (!view.unsupported.empty()) continue;
    std::size_t size = kernels::bytes_of(view.dtype);
    for (const std::int64_t extent : view.shape) size *= static_cast<std::size_t>(extent);
    expect(size == view.bytes.size(), "a shape counts its bytes");
  }
  expect(bytes + 8 <= input.size(), "no byte belongs to two tensors");
  expect(sum <= bytes * 255, "bytes are bytes");
  return true;
}

// The header ends at the last brace; the length before it says so.
std::string repair_length(std::string input) {
  const auto brace = input.rfind('}');
  if (brace == std::string::npos || brace < 8) return input;
  for (std::size_t i = 0; i < 8; ++i) {
    input[i] = static_cast<char>((brace + 1 - 8) >> (8 * i) & 255);
  }
  return input;
}

bool index(std::string_view input) {
  static const bool kWritten = [] {
    const std::string header = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"
                               "  ";
    std::string bytes(8, '\0');
    bytes[0] = static_cast<char>(header.size());
    folder().write("a.safetensors", bytes + header + "aaaa");
    std::string other = header;
    other[2] = 'y';
    folder().write("b.safetensors", bytes + other + "bbbb");
    return true;
  }();
  expect(kWritten, "shards are there");
  folder().write("model.safetensors.index.json", input);
  const auto checkpoint = model::Checkpoint::open(folder().path());
  if (!checkpoint) {
    expect_sentence(checkpoint.error(), "");
    return false;
  }
  for (const char* name : {"x", "y"}) {
    const auto view = checkpoint->get(name, {1});
    expect(view.has_value() == checkpoint->has(name), "what is there can be had");
    expect(!view || view->bytes.size() == 4, "a tensor has its bytes");
  }
  return true;
}

bool config(std::string_view input) {
  const auto config = model::parse_model_config(input, "config.json");
  if (!config) {
    expect_sentence(config.error(), "config.json");
    return false;
  }
  for (const int extent :
       {config->vocab_size, config->hidden_size, config->num_layers, config->num_heads,
        config->qk_rope_head_dim, config->v_head_dim, config->max_positions}) {
    expect(extent > 0, "extents are positive");
  }
  const bool latent = config->attention == model::AttentionKind::kLatent;
  expect((config->kv_lora_rank > 0) == latent, "latents are of latent attention");
  expect(!config->indexer || (latent && config->q_lora_rank > 0 && config->indexer->top_k > 0),
         "an indexer has what it works on");
  expect(!config->quantization || !config->integers, "weights are in FP8 or integers");
  expect(!config->integers || ((config->integers->bits() == 4 || config->integers->bits() == 8) &&
                               (config->integers->group == 0 || config->integers->group == 128)),
         "integers are of a kind that is known");
  expect(config->first_dense_layers <= config->num_layers, "dense layers are layers");
  for (const int ranks : {1, 2, 3, 8}) {
    const Status fits = model::check_tensor_parallel(*config, ranks);
    expect(fits || fits.error().kind == ErrorKind::kInvalid, "a cut fits or is refused");
  }
  return true;
}

bool adapter(std::string_view input) {
  const auto config = model::parse_adapter_config(input, "adapter_config.json");
  if (!config) {
    expect_sentence(config.error(), "adapter_config.json");
    return false;
  }
  expect(config->rank > 0 && config->rank <= model::kMaxAdapterRank, "a rank is bounded");
  expect(config->scale > 0 && config->scale < 1e12, "a scale is positive");
  return true;
}

bool manifest(std::string_view input) {
  const auto manifest = model::parse_manifest(input, "dir/SHA256SUMS");
  if (!manifest) {
    expect_sentence(manifest.error(), "dir/SHA256SUMS");
    return false;
  }
  for (const auto& [name, sha256] : manifest->entries) {
    expect(sha256.size() == 64, "a checksum has 64 digits");
    expect(fs::path(name).is_relative() && *fs::path(name).begin() != "..", "a name stays below");
  }
  return true;
}

constexpr fuzz::Target kTargets[] = {{"safetensors", safetensors, repair_length},
                                     {"index", index},
                                     {"config", config},
                                     {"adapter", adapter},
                                     {"manifest", manifest}};

}  // namespace

int main(int argc, char** argv) {
  return dsm::fuzz::fuzz_main(argc, argv, kTargets);
}
