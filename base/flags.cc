#include "base/flags.h"

#include <charconv>
#include <cstdio>

namespace dsm {
namespace {

template <typename T>
bool read_number(const std::string& text, T* value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, *value);
  return error == std::errc() && rest == end;
}

std::string number_text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", value);
  return buffer;
}

}  // namespace

Flags::Flags(std::string program, std::string description)
    : program_(std::move(program)), description_(std::move(description)) {}

void Flags::add_flag(Flag flag) {
  flags_.push_back(std::move(flag));
}

void Flags::add(const std::string& name, std::string* value, const std::string& help) {
  add_flag({name, help, *value, false,
            [value](const std::string& text) {
              *value = text;
              return true;
            },
            "a text"});
}

void Flags::add(const std::string& name, int* value, const std::string& help) {
  add_flag({name, help, std::to_string(*value), false,
            [value](const std::string& text) { return read_number(text, value); },
            "a whole number"});
}

void Flags::add(const std::string& name, std::int64_t* value, const std::string& help) {
  add_flag({name, help, std::to_string(*value), false,
            [value](const std::string& text) { return read_number(text, value); },
            "a whole number"});
}

void Flags::add(const std::string& name, double* value, const std::string& help) {
  add_flag({name, help, number_text(*value), false,
            [value](const std::string& text) { return read_number(text, value); }, "a number"});
}

void Flags::add(const std::string& name, bool* value, const std::string& help) {
  add_flag({name, help, *value ? "true" : "false", true,
            [value](const std::string& text) {
              if (text != "true" && text != "false") return false;
              *value = text == "true";
              return true;
            },
            "true or false"});
}

void Flags::add(const std::string& name, std::optional<bool>* value, const std::string& absent,
                const std::string& help) {
  add_flag({name, help, absent, true,
            [value](const std::string& text) {
              if (text != "true" && text != "false") return false;
              *value = text == "true";
              return true;
            },
            "true or false"});
}

Status Flags::parse(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    std::string name = argv[i];
    if (name == "--help" || name == "-h") return fail(ErrorKind::kCancelled, help());
    if (!name.starts_with("--")) {
      return fail(ErrorKind::kInvalid, "unexpected argument '" + name + "'; see --help");
    }
    name.erase(0, 2);
    std::string value;
    bool has_value = false;
    if (const auto equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
      has_value = true;
    }
    Flag* flag = nullptr;
    for (auto& candidate : flags_) {
      if (candidate.name == name) flag = &candidate;
    }
    if (flag == nullptr)
      return fail(ErrorKind::kInvalid, "unknown flag --" + name + "; see --help");
    if (!has_value) {
      const bool next_is_value = i + 1 < argc && std::string(argv[i + 1]).substr(0, 2) != "--";
      if (next_is_value) {
        value = argv[++i];
      } else if (flag->is_bool) {
        value = "true";
      } else {
        return fail(ErrorKind::kInvalid, "--" + name + " needs a value: " + flag->expected);
      }
    }
    if (!flag->set(value)) {
      return fail(ErrorKind::kInvalid,
                  "--" + name + " is '" + value + "', expected " + flag->expected);
    }
  }
  return {};
}

std::string Flags::help() const {
  std::string text = program_ + ": " + description_ + "\n\n";
  for (const auto& flag : flags_) {
    text +=
        "  --" + flag.name + "  (default '" + flag.default_text + "')\n      " + flag.help + "\n";
  }
  return text;
}

}  // namespace dsm
