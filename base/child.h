// A child process of this program or another, whose standard output is what matters: it has a
// deadline, and whatever becomes of it is a value. One that is given up, and all that it has
// started, is killed.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace dsm {

struct ChildLimits {
  Millis time{30'000};
  std::size_t output = std::size_t{1} << 20;  // bytes
};

struct ChildEnd {
  std::string output;
  std::string problem;  // empty: it has ended with status 0
};

// Runs `arguments`, the first of which is the program's path, and returns when it has ended, so
// that nothing which it took is in its hands any more. It gets no open file but its standard error
// stream, which is the caller's. `given_up` is asked now and then. Does not throw for what the
// child does.
ChildEnd run_child(const std::vector<std::string>& arguments, const ChildLimits& limits,
                   const std::function<bool()>& given_up);

}  // namespace dsm
