#include "operator/api/quantity.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace dsm::api {
namespace {

constexpr double kKi = 1024;
constexpr std::array<std::pair<std::string_view, double>, 15> kUnits = {
    {{"", 1},
     {"u", 1e-6},
     {"m", 1e-3},
     {"k", 1e3},
     {"M", 1e6},
     {"G", 1e9},
     {"T", 1e12},
     {"P", 1e15},
     {"E", 1e18},
     {"Ki", kKi},
     {"Mi", kKi* kKi},
     {"Gi", kKi* kKi* kKi},
     {"Ti", kKi* kKi* kKi* kKi},
     {"Pi", kKi* kKi* kKi* kKi* kKi},
     {"Ei", kKi* kKi* kKi* kKi* kKi* kKi}}};

std::string whole(double number) {
  std::array<char, 32> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed, 0);
  return {text.data(), end.ptr};
}

bool counts_bytes(std::string_view resource) {
  return resource == "memory" || resource.find("storage") != std::string_view::npos ||
         resource.starts_with("hugepages-");
}

}  // namespace

std::optional<double> milli_of(std::string_view quantity) {
  double number = 0;
  const char* const end = quantity.data() + quantity.size();
  const auto read = std::from_chars(quantity.data(), end, number, std::chars_format::fixed);
  if (read.ec != std::errc() || number < 0 || !std::isfinite(number)) return std::nullopt;
  const std::string_view unit(read.ptr, static_cast<std::size_t>(end - read.ptr));
  for (const auto& [name, factor] : kUnits) {
    // A sum of binary fractions may stand a hair above the whole number that is meant.
    if (name == unit) return std::ceil(number * factor * 1000 - 1e-6);
  }
  return std::nullopt;
}

std::string quantity_text(std::string_view resource, double milli) {
  if (std::fmod(milli, 1000) != 0) return whole(milli) + "m";
  const double number = milli / 1000;
  if (counts_bytes(resource) && number > 0) {
    for (std::size_t i = kUnits.size(); i-- > 9;) {
      const auto& [name, factor] = kUnits[i];
      if (std::fmod(number, factor) == 0) return whole(number / factor) + std::string(name);
    }
  }
  return whole(number);
}

bool same_quantity(std::string_view a, std::string_view b) {
  const auto left = milli_of(a);
  return left && left == milli_of(b);
}

}  // namespace dsm::api
