#include "worker/comm/nccl.h"

#include <dlfcn.h>

#include <string>

namespace dsm::comm {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";
constexpr int kOldest = 21400;  // 2.14.0

// Looks up functions until one is missing.
class Library {
 public:
  explicit Library(void* handle) : handle_(handle) {}

  template <class Function>
  void find(const char* name, Function*& to) {
    to = reinterpret_cast<Function*>(dlsym(handle_, name));
    if (to == nullptr && missing_.empty()) missing_ = name;
  }
  const std::string& missing() const { return missing_; }

 private:
  void* handle_;
  std::string missing_;
};

std::string dotted(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

}  // namespace

Result<NcclApi> load_nccl(const char* name) {
  // Never closed: its threads and those of CUDA know of each other to the end of the process.
  void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    return fail(ErrorKind::kNotFound,
                std::string("NCCL, over which GPUs add up, cannot be loaded: ") + dlerror());
  }
  Library library(handle);
  NcclApi api{};
  library.find("ncclGetVersion", api.get_version);
  library.find("ncclGetErrorString", api.error_string);
  library.find("ncclGetUniqueId", api.get_unique_id);
  library.find("ncclCommInitRankConfig", api.init_rank);
  library.find("ncclCommGetAsyncError", api.async_error);
  library.find("ncclCommAbort", api.abort);
  library.find("ncclAllGather", api.all_gather);
  library.find("ncclAllReduce", api.all_reduce);
  if (!library.missing().empty()) {
    return fail(ErrorKind::kNotFound, std::string(name) + " has no " + library.missing() +
                                          ": NCCL " + dotted(kOldest) + " or later is needed");
  }
  int version = 0;
  if (api.get_version(&version) != NcclApi::kSuccess || version < kOldest) {
    return fail(ErrorKind::kNotFound, std::string(name) + " is NCCL " + dotted(version) + ", " +
                                          dotted(kOldest) + " or later is needed");
  }
  return api;
}

Result<const NcclApi*> load_nccl() {
  static const Result<NcclApi> loaded = load_nccl(kLibrary);
  if (!loaded) return std::unexpected(loaded.error());
  return &*loaded;
}

}  // namespace dsm::comm
