#include "bench/gpu/report.h"

#include <cstdio>
#include <nlohmann/json.hpp>

namespace dsm::bench {
namespace {

using Json = nlohmann::ordered_json;

// Three digits are more than differ from run to run.
std::string number(double value) {
  char text[32];
  const int decimals = value < 10 ? 2 : value < 100 ? 1 : 0;
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string cell(const Json& line, const char* field, double factor = 1) {
  const auto found = line.find(field);
  return found == line.end() ? "" : number(found->get<double>() * factor);
}

std::string row_of(const Json& line) {
  std::string bound = cell(line, "bound_us");
  if (!bound.empty()) bound += line.at("bound_by") == "memory" ? " (memory)" : " (arithmetic)";
  const std::string share = cell(line, "share_of_bound", 100);
  return "| " + line.at("name").get<std::string>() + " | " +
         std::to_string(line.at("rows").get<int>()) + " | " + cell(line, "us") + " | " +
         cell(line, "gb_per_s") + " | " + cell(line, "tflop_per_s") + " | " +
         cell(line, "tokens_per_s") + " | " + bound + " | " + (share.empty() ? "" : share + " %") +
         " | " + cell(line, "host_us") + " |\n";
}

}  // namespace

std::string json_line(const Measurement& m) {
  Json json = {{"device", m.device}, {"model", m.model},      {"name", m.name},
               {"rows", m.rows},     {"us", m.seconds * 1e6}, {"tokens_per_s", m.rows / m.seconds}};
  if (m.work.bytes > 0) {
    json["gb_per_s"] = m.work.bytes / m.seconds * 1e-9;
    json["tflop_per_s"] = (m.work.flops + m.work.fp8_flops) / m.seconds * 1e-12;
  }
  if (const Peaks* peaks = m.work.bytes > 0 ? peaks_of(m.device) : nullptr) {
    const Bound bound = bound_of(m.work, *peaks);
    json["bound_us"] = bound.seconds * 1e6;
    json["bound_by"] = bound.by_memory ? "memory" : "arithmetic";
    json["share_of_bound"] = bound.seconds / m.seconds;
  }
  if (m.host_seconds > 0) json["host_us"] = m.host_seconds * 1e6;
  return json.dump();
}

Result<std::string> tables(std::istream& lines) {
  std::string text;
  std::string title;
  std::string line;
  for (int count = 1; std::getline(lines, line); ++count) {
    try {
      const Json json = Json::parse(line);
      const std::string here =
          json.at("model").get<std::string>() + " on " + json.at("device").get<std::string>();
      if (here != title) {
        title = here;
        text += (text.empty() ? "" : "\n") + title +
                ":\n\n| what | rows | us | GB/s | TFLOP/s | tokens/s | bound, us | of the bound | "
                "host, us |\n|---|---|---|---|---|---|---|---|---|\n";
      }
      text += row_of(json);
    } catch (const Json::exception& error) {
      return fail(ErrorKind::kInvalid, "line " + std::to_string(count) + ": " + error.what());
    }
  }
  return text;
}

}  // namespace dsm::bench
