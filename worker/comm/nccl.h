// NCCL's C interface as far as it is used here, found at run time: one program serves where there
// is no GPU and no NCCL. Types and numbers are those of nccl.h, which has kept them since 2.14, the
// first version with communicators that do not block.
#pragma once

#include <cstddef>

#include "base/result.h"

namespace dsm::comm {

struct NcclApi {
  // ncclComm_t
  using Handle = struct NcclState*;
  // ncclResult_t; others are errors, which error_string() names.
  static constexpr int kSuccess = 0;
  static constexpr int kInProgress = 7;
  static constexpr int kFloat32 = 7;  // ncclDataType_t
  static constexpr int kSum = 0;      // ncclRedOp_t
  struct Id {                         // ncclUniqueId
    char bytes[128];
  };
  // ncclConfig_t as of the version it names; NCCL takes the fields of later ones from its defaults.
  struct Config {
    std::size_t size = sizeof(Config);
    unsigned magic = 0xcafebeef;
    unsigned version = 21400;
    int blocking = 0;
  };

  // Streams are cudaStream_t.
  int (*get_version)(int* version);
  const char* (*error_string)(int result);
  int (*get_unique_id)(Id* id);
  int (*init_rank)(Handle* comm, int size, Id id, int rank, Config* config);
  int (*async_error)(Handle comm, int* result);
  int (*abort)(Handle comm);
  int (*all_gather)(const void* send, void* recv, std::size_t count, int type, Handle comm,
                    void* stream);
  int (*all_reduce)(const void* send, void* recv, std::size_t count, int type, int op, Handle comm,
                    void* stream);
};

// Loads libnccl.so.2, once for the process. kNotFound: a sentence that says what is missing.
Result<const NcclApi*> load_nccl();
// As load_nccl(), another library each time; for tests.
Result<NcclApi> load_nccl(const char* library);

}  // namespace dsm::comm
