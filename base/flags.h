// Command-line flags: declared once with a help text, bound to the fields of an options struct.
//
//   Flags flags("deepseek-worker", "Serves a DeepSeek model.");
//   flags.add("port", &options.port, "Port of the public API");
//   Status parsed = flags.parse(argc, argv);        // "--port 8000" or "--port=8000"
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace dsm {

class Flags {
 public:
  Flags(std::string program, std::string description);

  void add(const std::string& name, std::string* value, const std::string& help);
  void add(const std::string& name, int* value, const std::string& help);
  void add(const std::string& name, std::int64_t* value, const std::string& help);
  void add(const std::string& name, double* value, const std::string& help);
  void add(const std::string& name, bool* value,
           const std::string& help);  // --x, --x=true, --x false
  // Likewise; `absent` says what it is as long as nobody gives it.
  void add(const std::string& name, std::optional<bool>* value, const std::string& absent,
           const std::string& help);

  // kInvalid names the flag and what was expected. "--help" gives kCancelled with the help text as
  // its message.
  Status parse(int argc, const char* const* argv);
  std::string help() const;

 private:
  struct Flag {
    std::string name;
    std::string help;
    std::string default_text;
    bool is_bool = false;
    std::function<bool(const std::string&)> set;  // false: the text does not fit
    std::string expected;                         // "a number"
  };
  void add_flag(Flag flag);

  std::string program_;
  std::string description_;
  std::vector<Flag> flags_;
};

}  // namespace dsm
