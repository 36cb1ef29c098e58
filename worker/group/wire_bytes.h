// The bytes of a message: numbers as they lie in memory (little endian), texts and lists with their
// length in front.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace dsm::group {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie");

class Writer {
 public:
  template <typename T>
    requires std::is_arithmetic_v<T>
  void number(T value) {
    // One by one: GCC 12 warns of an overflow that is not there when a range is inserted.
    for (const std::byte b : std::bit_cast<std::array<std::byte, sizeof(T)>>(value)) {
      out_.push_back(b);
    }
  }
  void text(std::string_view s) {
    number(static_cast<std::uint32_t>(s.size()));
    const auto bytes = std::as_bytes(std::span(s));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  template <typename T>
  void numbers(const std::vector<T>& values) {
    number(static_cast<std::uint32_t>(values.size()));
    const auto bytes = std::as_bytes(std::span(values));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  std::vector<std::byte> out_;
};

// Reads what Writer wrote. After the first thing that is not there, everything reads as zero or
// empty and ok() is false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> in) : in_(in) {}

  template <typename T>
    requires std::is_arithmetic_v<T>
  T number() {
    T value{};
    const auto bytes = take(sizeof(T));
    if (!bytes.empty()) {
      std::memcpy(&value, bytes.data(), sizeof(T));
    }
    return value;
  }
  std::string text() {
    const auto bytes = take(number<std::uint32_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  template <typename T>
  std::vector<T> numbers() {
    const std::size_t count = number<std::uint32_t>();
    const auto bytes = take(count * sizeof(T));
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) {
      std::memcpy(values.data(), bytes.data(), bytes.size());
    }
    return values;
  }
  // A count of things that take at least `smallest` bytes each.
  std::size_t count(std::size_t smallest) {
    const std::size_t n = number<std::uint32_t>();
    ok_ = ok_ && n <= in_.size() / smallest;
    return ok_ ? n : 0;
  }
  template <typename E>
  E choice(E last) {
    const auto value = number<std::uint8_t>();
    ok_ = ok_ && value <= static_cast<std::uint8_t>(last);
    return ok_ ? static_cast<E>(value) : E{};
  }
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  std::span<const std::byte> take(std::size_t n) {
    if (!ok_ || n > in_.size()) {
      ok_ = false;
      return {};
    }
    const auto bytes = in_.first(n);
    in_ = in_.subspan(n);
    return bytes;
  }

  std::span<const std::byte> in_;
  bool ok_ = true;
};

}  // namespace dsm::group
