// Reads and writes safetensors files and model directories for tests.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "worker/model/safetensors.h"

namespace dsm::model {

struct TestTensor {
  std::string dtype;  // as safetensors spells it
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using TestTensors = std::map<std::string, TestTensor>;

// A file's tensors, to be changed and written again; of the types F32, F16, BF16, F8_E4M3 and
// those that nobody computes with.
inline TestTensors read_safetensors(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  if (!file) throw std::runtime_error(file.error().message);
  TestTensors tensors;
  for (const auto& [name, view] : file->tensors()) {
    const std::string dtype = !view.unsupported.empty()               ? view.unsupported
                              : view.dtype == kernels::DType::kF8E4M3 ? "F8_E4M3"
                              : view.dtype == kernels::DType::kBF16   ? "BF16"
                              : view.dtype == kernels::DType::kF16    ? "F16"
                                                                      : "F32";
    tensors[name] = {
        dtype, view.shape, {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()}};
  }
  return tensors;
}

inline std::string safetensors_bytes(const TestTensors& tensors) {
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  const std::string text = header.dump();
  const std::uint64_t size = text.size();
  std::string bytes(sizeof size, '\0');
  std::memcpy(bytes.data(), &size, sizeof size);
  return bytes + text + data;
}

// A folder of a test's own, removed with all that is in it at the end.
class TestDir {
 public:
  TestDir()
      : path_(std::filesystem::temp_directory_path() /
              ("dsm-test-" + std::to_string(::getpid()) + "-" +
               std::to_string(std::random_device{}()))) {
    std::filesystem::create_directory(path_);
  }
  ~TestDir() { std::filesystem::remove_all(path_); }
  TestDir(const TestDir&) = delete;
  TestDir& operator=(const TestDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary | std::ios::trunc) << bytes;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace dsm::model
