#include "base/log.h"

#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/clock.h"

namespace dsm {
namespace {

std::string json_quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_field(std::string& line, LogFormat format, std::string_view key,
                  const LogValue& value) {
  const std::string text = value.quoted() ? json_quoted(value.text()) : value.text();
  if (format == LogFormat::kJson) {
    line += "," + json_quoted(key) + ":" + text;
  } else {
    line += "  " + std::string(key) + "=" + text;
  }
}

}  // namespace

struct Logger::Sink {
  LogLevel level;
  LogFormat format;
  std::mutex mutex;
};

LogValue::LogValue(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  text_ = buffer;
  // JSON has no infinities or NaN.
  quoted_ = text_.find_first_not_of("0123456789+-.e") != std::string::npos;
}

Logger Logger::to_stderr(LogLevel level, LogFormat format) {
  Logger logger;
  logger.sink_ = std::make_shared<Sink>();
  logger.sink_->level = level;
  logger.sink_->format = format;
  return logger;
}

void Logger::info(std::string_view message, std::initializer_list<LogField> fields) const {
  write(LogLevel::kInfo, message, fields);
}

void Logger::debug(std::string_view message, std::initializer_list<LogField> fields) const {
  write(LogLevel::kDebug, message, fields);
}

Logger Logger::with(std::initializer_list<LogField> fields) const {
  Logger copy = *this;
  for (const auto& [key, value] : fields) copy.fields_.emplace_back(std::string(key), value);
  return copy;
}

void Logger::write(LogLevel level, std::string_view message,
                   std::initializer_list<LogField> fields) const {
  if (!sink_ || level < sink_->level) return;
  const std::string time = to_rfc3339_micro(std::chrono::system_clock::now());
  const char* name = level == LogLevel::kInfo ? "info" : "debug";
  std::string line;
  if (sink_->format == LogFormat::kJson) {
    line = "{\"ts\":\"" + time + "\",\"level\":\"" + name + "\",\"msg\":" + json_quoted(message);
  } else {
    line = time + " " + name + " " + std::string(message);
  }
  for (const auto& [key, value] : fields_) append_field(line, sink_->format, key, value);
  for (const auto& [key, value] : fields) append_field(line, sink_->format, key, value);
  line += sink_->format == LogFormat::kJson ? "}\n" : "\n";
  std::lock_guard lock(sink_->mutex);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace dsm
