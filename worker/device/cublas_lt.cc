#include "worker/device/cublas_lt.h"

#include "base/shared_library.h"

namespace dsm::device {
namespace {

FoundCublasLt load() {
  auto library = SharedLibrary::open({"libcublasLt.so.13", "libcublasLt.so.12"});
  if (!library) return std::unexpected("cuBLASLt is not there: " + library.error().message);
  CublasLt table{};
  library->find(table.create, "cublasLtCreate");
  library->find(table.destroy, "cublasLtDestroy");
  library->find(table.product_create, "cublasLtMatmulDescCreate");
  library->find(table.product_destroy, "cublasLtMatmulDescDestroy");
  library->find(table.product_set, "cublasLtMatmulDescSetAttribute");
  library->find(table.layout_create, "cublasLtMatrixLayoutCreate");
  library->find(table.layout_destroy, "cublasLtMatrixLayoutDestroy");
  library->find(table.preference_create, "cublasLtMatmulPreferenceCreate");
  library->find(table.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  library->find(table.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  library->find(table.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  library->find(table.multiply, "cublasLtMatmul");
  if (!library->missing().empty()) {
    return std::unexpected("cuBLASLt has no function " + library->missing());
  }
  library->keep();
  return table;
}

}  // namespace

const FoundCublasLt& cublas_lt() {
  static const auto kLibrary = load();
  return kLibrary;
}

}  // namespace dsm::device
