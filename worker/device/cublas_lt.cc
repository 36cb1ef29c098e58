#include "worker/device/cublas_lt.h"

#include <dlfcn.h>

#include <type_traits>

namespace dsm::device {
namespace {

FoundCublasLt load() {
  void* library = nullptr;
  std::string why;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
    why += (why.empty() ? "" : "; ") + std::string(::dlerror());
  }
  if (library == nullptr) return std::unexpected("cuBLASLt is not there: " + why);
  CublasLt table{};
  std::string missing;
  const auto find = [&](const char* name, auto& function) {
    void* const found = ::dlsym(library, name);
    if (found == nullptr) missing = name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
  };
  find("cublasLtCreate", table.create);
  find("cublasLtDestroy", table.destroy);
  find("cublasLtMatmulDescCreate", table.product_create);
  find("cublasLtMatmulDescDestroy", table.product_destroy);
  find("cublasLtMatmulDescSetAttribute", table.product_set);
  find("cublasLtMatrixLayoutCreate", table.layout_create);
  find("cublasLtMatrixLayoutDestroy", table.layout_destroy);
  find("cublasLtMatmulPreferenceCreate", table.preference_create);
  find("cublasLtMatmulPreferenceDestroy", table.preference_destroy);
  find("cublasLtMatmulPreferenceSetAttribute", table.preference_set);
  find("cublasLtMatmulAlgoGetHeuristic", table.heuristic);
  find("cublasLtMatmul", table.multiply);
  if (!missing.empty()) return std::unexpected("cuBLASLt has no function " + missing);
  return table;
}

}  // namespace

const FoundCublasLt& cublas_lt() {
  static const auto kLibrary = load();
  return kLibrary;
}

}  // namespace dsm::device
