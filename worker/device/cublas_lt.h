// The part of cuBLASLt that products use, found at run time where a GPU's libraries are: one
// program runs with and without it. Names and numbers are those of cublasLt.h (12 and 13).
//
// No CUDA header is needed to include this.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>

struct CUstream_st;

namespace dsm::device {

struct CublasLt {
  // cublasStatus_t; 0 is success.
  using Status = int;
  // cudaDataType_t, cublasComputeType_t, cublasOperation_t
  static constexpr int kFloat32 = 0;
  static constexpr int kBFloat16 = 14;
  static constexpr int kComputeFloat32 = 68;
  static constexpr std::int32_t kTransposed = 1;
  // cublasLtMatmulDescAttributes_t, cublasLtMatmulPreferenceAttributes_t
  static constexpr int kTransposeA = 3;
  static constexpr int kMostWorkspaceBytes = 1;

  // cublasLtMatmulAlgo_t, cublasLtMatmulHeuristicResult_t
  struct Algorithm {
    std::array<std::uint64_t, 8> opaque;
  };
  struct Found {
    Algorithm algorithm;
    std::size_t workspace_bytes;
    Status status;
    float waves;
    std::array<int, 4> reserved;
  };

  Status (*create)(void** library);
  Status (*destroy)(void* library);
  Status (*product_create)(void** product, int compute_type, int scale_type);
  Status (*product_destroy)(void* product);
  Status (*product_set)(void* product, int attribute, const void* value, std::size_t bytes);
  // Column-major.
  Status (*layout_create)(void** layout, int type, std::uint64_t rows, std::uint64_t columns,
                          std::int64_t ld);
  Status (*layout_destroy)(void* layout);
  Status (*preference_create)(void** preference);
  Status (*preference_destroy)(void* preference);
  Status (*preference_set)(void* preference, int attribute, const void* value, std::size_t bytes);
  Status (*heuristic)(void* library, void* product, void* a, void* b, void* c, void* d,
                      void* preference, int wanted, Found* found, int* count);
  Status (*multiply)(void* library, void* product, const void* alpha, const void* a, void* a_layout,
                     const void* b, void* b_layout, const void* beta, const void* c, void* c_layout,
                     void* d, void* d_layout, const Algorithm* algorithm, void* workspace,
                     std::size_t workspace_bytes, CUstream_st* stream);
};

// The error is a sentence.
using FoundCublasLt = std::expected<CublasLt, std::string>;
// Looked for once in a process.
const FoundCublasLt& cublas_lt();

}  // namespace dsm::device
