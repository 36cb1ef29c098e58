// Structured logging: a constant lower-case message and key-values, as text for people or JSON for
// the cluster. Two levels. Never log prompts, tokens of users or secrets. Thread-safe; a Logger is
// cheap to copy.
//
//   log.info("pod created", {{"model", name}, {"pod", pod}});
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsm {

enum class LogLevel { kDebug, kInfo };
enum class LogFormat { kText, kJson };

// A value that a log line can carry: text, a number or a truth value, as it will be printed.
class LogValue {
 public:
  LogValue(std::string_view text) : text_(text), quoted_(true) {}
  LogValue(const char* text) : text_(text), quoted_(true) {}
  LogValue(const std::string& text) : text_(text), quoted_(true) {}
  LogValue(bool value) : text_(value ? "true" : "false") {}
  LogValue(double value);
  template <typename T>
    requires std::is_integral_v<T>
  LogValue(T value) : text_(std::to_string(value)) {}

  const std::string& text() const { return text_; }
  bool quoted() const { return quoted_; }

 private:
  std::string text_;
  bool quoted_ = false;
};

using LogField = std::pair<std::string_view, LogValue>;

class Logger {
 public:
  // A logger that drops everything; the default in tests.
  Logger() = default;
  // Writes to the standard error stream.
  static Logger to_stderr(LogLevel level, LogFormat format);

  void info(std::string_view message, std::initializer_list<LogField> fields = {}) const;
  void debug(std::string_view message, std::initializer_list<LogField> fields = {}) const;
  // A logger that adds these fields to each line.
  Logger with(std::initializer_list<LogField> fields) const;

 private:
  struct Sink;
  void write(LogLevel level, std::string_view message,
             std::initializer_list<LogField> fields) const;

  std::shared_ptr<Sink> sink_;
  std::vector<std::pair<std::string, LogValue>> fields_;
};

}  // namespace dsm
