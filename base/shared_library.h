// A library that is loaded while the program runs, so that the program also runs where it is not
// installed.
#pragma once

#include <initializer_list>
#include <string>

#include "base/result.h"

namespace dsm {

class SharedLibrary {
 public:
  // The first of the names that can be loaded. kNotFound with the loader's words on each of them.
  static Result<SharedLibrary> open(std::initializer_list<const char*> names);
  ~SharedLibrary();  // closes it
  SharedLibrary(SharedLibrary&& other) noexcept;
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;
  SharedLibrary& operator=(SharedLibrary&&) = delete;

  // Sets `function` to the first of the names that the library has; null where it has none, and
  // then the first name joins missing().
  template <typename Function>
  void find(Function*& function, std::initializer_list<const char*> names) {
    function = reinterpret_cast<Function*>(address(names));
  }
  template <typename Function>
  void find(Function*& function, const char* name) {
    find(function, {name});
  }
  // What was looked for and not found, with commas; empty: nothing.
  const std::string& missing() const { return missing_; }

  // It stays to the end of the process: for one whose threads do.
  void keep() { handle_ = nullptr; }

 private:
  explicit SharedLibrary(void* handle) : handle_(handle) {}
  void* address(std::initializer_list<const char*> names);

  void* handle_;
  std::string missing_;
};

}  // namespace dsm
