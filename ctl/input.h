// Files that the command line names.
#pragma once

#include <cstddef>
#include <istream>
#include <string>
#include <string_view>

#include "base/result.h"

namespace dsm::ctl {

// Longer is no config.json.
inline constexpr std::size_t kLongestConfig = 1U << 20;

// The text of a file, "-" being standard input. kInvalid, naming `flag`: it cannot be read, or is
// longer than `most` bytes.
Result<std::string> read_input(const std::string& file, std::string_view flag, std::size_t most,
                               std::istream& standard_input);

}  // namespace dsm::ctl
