#include "worker/text/tool_grammar.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "worker/text/chat_markers.h"
#include "worker/text/python_json.h"

namespace dsm::text {
namespace {

using Json = nlohmann::ordered_json;

std::string literal(std::string_view text) {
  return Json(text).dump();
}

class GrammarWriter {
 public:
  GrammarWriter(ToolFormat format, const MarkerTokens& tokens) : format_(format), tokens_(tokens) {}

  Status add_tool(const ToolDefinition& tool) {
    Json schema = {{"type", "object"}};
    if (!tool.parameters.empty()) {
      std::optional<Json> parsed = parse_json(tool.parameters);
      if (!parsed || !parsed->is_object()) {
        return fail(ErrorKind::kInvalid,
                    "tools: the parameters of '" + tool.name + "' are not a JSON Schema object");
      }
      schema = std::move(*parsed);
      schema["type"] = "object";  // arguments are always named
    }
    const std::string number = std::to_string(count_++);
    tools_ += (tools_.empty() ? "tool_" : " | tool_") + number;
    rules_ += "tool_" + number + ": ";
    switch (format_) {
      case ToolFormat::kTyped:
        rules_ += literal("function") + marker(markers::kSeparator) +
                  literal(tool.name + "\n```json\n") + " args_" + number + " " + literal("\n```");
        break;
      case ToolFormat::kNamed:
        rules_ += literal(tool.name) + marker(markers::kSeparator) + "args_" + number;
        break;
      case ToolFormat::kDsml:
        rules_ += tag("<", "invoke name=\"" + tool.name + "\">\n");
        parameters(schema, number);
        rules_ += tag("</", "invoke>\n") + "\n" + pending_;
        pending_.clear();
        return {};
      case ToolFormat::kNone:
        break;
    }
    rules_ += "\nargs_" + number + ": %json " + schema.dump() + "\n";
    return {};
  }

  std::string finish(bool parallel) const {
    std::string start = "start: ";
    if (format_ == ToolFormat::kDsml) {
      start += "\"\\n\\n\" " + tag("<", "function_calls>\n") + " call" + (parallel ? "+ " : " ") +
               tag("</", "function_calls>");
      return start + "\ncall: " + tools_ + "\n" + rules_;
    }
    start += marker(markers::kCallsBegin) + "call";
    if (parallel) start += format_ == ToolFormat::kTyped ? " (\"\\n\" call)*" : "+";
    start += marker(markers::kCallsEnd);
    return start + "\ncall:" + marker(markers::kCallBegin) + "(" + tools_ + ")" +
           marker(markers::kCallEnd) + "\n" + rules_;
  }

 private:
  std::string marker(std::string_view name) const {
    return " " + (tokens_.calls ? std::string(name) : literal(name)) + " ";
  }

  std::string dsml() const {
    return tokens_.dsml >= 0 ? "<[" + std::to_string(tokens_.dsml) + "]>" : literal(markers::kDsml);
  }
  std::string tag(std::string_view before, std::string_view after) const {
    return literal(before) + " " + dsml() + " " + literal(after);
  }

  // One rule for each property, in the schema's order; the parser takes any, so does the model.
  void parameters(const Json& schema, const std::string& number) {
    const Json properties = schema.value("properties", Json::object());
    if (!properties.is_object() || properties.empty()) return;
    const Json required = schema.value("required", Json::array());
    int index = 0;
    for (const auto& [name, property] : properties.items()) {
      const std::string rule = "p_" + number + "_" + std::to_string(index++);
      const bool needed =
          required.is_array() && std::ranges::find(required, Json(name)) != required.end();
      rules_ += " " + rule + (needed ? "" : "?");
      parameter(rule, name, property, schema);
    }
    rules_ += " ";
  }

  void parameter(const std::string& rule, const std::string& name, const Json& property,
                 const Json& schema) {
    const bool is_text = property.is_object() && property.value("type", Json()) == "string";
    pending_ += rule + ": " +
                tag("<", "parameter name=\"" + name + "\" string=\"" +
                             (is_text ? "true" : "false") + "\">");
    if (is_text && property.contains("enum") && property.at("enum").is_array()) {
      std::string choices;
      for (const Json& value : property.at("enum")) {
        if (!value.is_string()) continue;
        choices += (choices.empty() ? "" : " | ") + literal(value.get<std::string>() + "</");
      }
      pending_ += " (" + choices + ") ";
    } else if (is_text) {
      pending_ += " " + rule + "_v ";
    } else {
      pending_ += " " + rule + "_v \"</\" ";
    }
    pending_ += dsml() + " " + literal("parameter>\n") + "\n";
    if (!is_text) {
      Json own = property;
      for (const char* definitions : {"$defs", "definitions"}) {
        if (own.is_object() && schema.contains(definitions) && !own.contains(definitions)) {
          own[definitions] = schema.at(definitions);
        }
      }
      pending_ += rule + "_v: %json " + own.dump() + "\n";
    } else if (!property.contains("enum")) {
      pending_ += rule + "_v[suffix=\"</\"]: /(.|\\n)*/\n";
    }
  }

  ToolFormat format_;
  MarkerTokens tokens_;
  int count_ = 0;
  std::string tools_;    // the alternatives
  std::string rules_;    // their rules
  std::string pending_;  // rules of the tool that is being written
};

}  // namespace

Result<std::string> write_tool_grammar(ToolFormat format, const MarkerTokens& tokens,
                                       std::span<const ToolDefinition> tools,
                                       const ToolChoice& choice, bool parallel) {
  GrammarWriter writer(format, tokens);
  bool any = false;
  for (const ToolDefinition& tool : tools) {
    if (choice.mode == ToolChoice::Mode::kNamed && tool.name != choice.name) continue;
    if (Status status = writer.add_tool(tool); !status) return std::unexpected(status.error());
    any = true;
  }
  if (!any && choice.mode == ToolChoice::Mode::kNamed) {
    return fail(ErrorKind::kInvalid,
                "tool_choice: there is no tool '" + choice.name + "' among the tools");
  }
  if (!any) return fail(ErrorKind::kInvalid, "tool_choice: the request has no tools to call");
  return writer.finish(parallel);
}

}  // namespace dsm::text
