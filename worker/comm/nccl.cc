#include "worker/comm/nccl.h"

#include <string>

#include "base/shared_library.h"

namespace dsm::comm {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";
constexpr int kOldest = 21400;  // 2.14.0

std::string dotted(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace

Result<NcclApi> load_nccl(const char* name) {
  auto library = SharedLibrary::open({name});
  if (!library) {
    return fail(ErrorKind::kNotFound,
                "NCCL, over which GPUs add up, cannot be loaded: " + library.error().message);
  }
  NcclApi api{};
  library->find(api.get_version, "ncclGetVersion");
  library->find(api.error_string, "ncclGetErrorString");
  library->find(api.get_unique_id, "ncclGetUniqueId");
  library->find(api.init_rank, "ncclCommInitRankConfig");
  library->find(api.async_error, "ncclCommGetAsyncError");
  library->find(api.abort, "ncclCommAbort");
  library->find(api.all_gather, "ncclAllGather");
  library->find(api.all_reduce, "ncclAllReduce");
  if (!library->missing().empty()) {
    return fail(ErrorKind::kNotFound, std::string(name) + " has no " + library->missing() +
                                          ": NCCL " + dotted(kOldest) + " or later is needed");
  }
  int version = 0;
  if (api.get_version(&version) != NcclApi::kSuccess || version < kOldest) {
    return fail(ErrorKind::kNotFound, std::string(name) + " is NCCL " + dotted(version) + ", " +
                                          dotted(kOldest) + " or later is needed");
  }
  library->keep();  // its threads and those of CUDA know of each other to the end of the process
  return api;
}

Result<const NcclApi*> load_nccl() {
  static const Result<NcclApi> loaded = load_nccl(kLibrary);
  if (!loaded) return std::unexpected(loaded.error());
  return &*loaded;
}

}  // namespace dsm::comm
