#include "base/shared_library.h"

#include <dlfcn.h>

#include <utility>

namespace dsm {

Result<SharedLibrary> SharedLibrary::open(std::initializer_list<const char*> names) {
  std::string why;
  for (const char* name : names) {
    if (void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL); handle != nullptr) {
      return SharedLibrary(handle);
    }
    why += (why.empty() ? "" : "; ") + std::string(dlerror());
  }
  return fail(ErrorKind::kNotFound, why);
}

SharedLibrary::SharedLibrary(SharedLibrary&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), missing_(std::move(other.missing_)) {}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* SharedLibrary::address(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (void* found = dlsym(handle_, name); found != nullptr) return found;
  }
  missing_ += (missing_.empty() ? "" : ", ") + std::string(*names.begin());
  return nullptr;
}

}  // namespace dsm
