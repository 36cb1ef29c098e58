// Long runs of the parsers on broken input: `make fuzz`. A target takes any bytes and says whether
// they were accepted; what must hold then is checked with expect(), and a breach, like a crash,
// ends the program after it printed the seed and saved the input.
//
// An input is made from the corpus of its target (tests/fuzz/corpora/<target>) and a seed alone, so
// the seed repeats it. The corpus is small, valid files and such that once found a mistake.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace dsm::fuzz {

struct Target {
  std::string_view name;
  bool (*run)(std::string_view input);
  // Makes most inputs pass a check that blind changes hardly ever pass, such as a length; may be
  // null.
  std::string (*repair)(std::string input) = nullptr;
};

void expect(bool ok, std::string_view what);

// The program. Arguments are printed when there are none.
int fuzz_main(int argc, char** argv, std::span<const Target> targets);

}  // namespace dsm::fuzz
