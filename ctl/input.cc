#include "ctl/input.h"

#include <fstream>

namespace dsm::ctl {

Result<std::string> read_input(const std::string& file, std::string_view flag, std::size_t most,
                               std::istream& standard_input) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened) return fail(ErrorKind::kInvalid, std::string(flag) + ": cannot read " + file);
  }
  std::istream& from = file == "-" ? standard_input : opened;
  std::string text(most + 1, '\0');
  from.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(from.gcount()));
  if (text.size() > most) {
    return fail(ErrorKind::kInvalid, std::string(flag) + ": " + file + " is longer than " +
                                         std::to_string(most) + " bytes");
  }
  return text;
}

}  // namespace dsm::ctl
