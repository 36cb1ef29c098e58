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

  // `held`: its arguments match its parameters; otherwise they are any object.
  Status add_tool(const ToolDefinition& tool, bool held) {
    Json schema = {{"type", "object"}};
    if (held && !tool.parameters.empty()) {
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
        if (held) {
          parameters(schema, number);
        } else {
          rules_ += " any_parameter* ";
          needs_any_parameter_ = true;
        }
        rules_ += tag("</", "invoke>\n") + "\n" + pending_;
        pending_.clear();
        return {};
      case ToolFormat::kNone:
        break;
    }
    rules_ += "\nargs_" + number + ": %json " + schema.dump() + "\n";
    return {};
  }

  // The answer is calls.
  std::string finish_forced(bool parallel) const {
    const std::string opening = format_ == ToolFormat::kDsml
                                    ? "\"\\n\\n\" " + tag("<", "function_calls>\n")
                                    : marker(markers::kCallsBegin);
    return "start: " + opening + call_list(parallel) + call_rules();
  }

  // The output is text with a thought in it or not, and calls behind it if the model opens them;
  // also out of the thought, which a call ends.
  std::string finish_optional(bool parallel) const {
    std::string start = "start: ";
    if (tokens_.thought) start += "(FREE? thought)* ";
    start += "(FREE? | opened ";
    if (format_ == ToolFormat::kDsml) start += literal("\n");
    std::string rules = call_list(parallel) + ")" + opened() + call_rules();
    if (tokens_.thought) {
      rules += "thought: " + std::string(markers::kThinkOpen) + " | " +
               std::string(markers::kThinkClose) + "\n";
    }
    return start + rules;
  }

 private:
  // The rules FREE, text in which no call is opened, and `opened`, text and the opening of calls.
  // No special token is text. An opening that is spelled makes a lazy rule, so that free text
  // cannot go on over it.
  std::string opened() const {
    static constexpr std::string_view kAny = "/(.|\\n)*/";
    const auto rules = [](const std::string& rule, const std::string& spelled) {
      std::string free = "\nFREE: " + std::string(kAny);
      if (!spelled.empty()) free += " & ~/(.|\\n)*(" + spelled + ")(.|\\n)*/";
      return "\nopened" + rule + free;
    };
    const std::string begin(markers::kCallsBegin);
    if (format_ == ToolFormat::kDsml) {
      if (tokens_.dsml >= 0) {
        return rules(": TO_TAG " + dsml() + " \"function_calls>\"\nTO_TAG: /(.|\\n)*</", "");
      }
      const std::string tag = "<" + std::string(markers::kDsml) + "function_calls>";
      return rules("[lazy]: FREE " + literal(tag), tag);
    }
    if (tokens_.calls) return rules(": FREE? " + begin, "");
    // A call without the outer marker would be found as well.
    return rules("[lazy]: FREE " + literal(begin), begin + "|" + std::string(markers::kCallBegin));
  }

  // What follows the opening.
  std::string call_list(bool parallel) const {
    if (format_ == ToolFormat::kDsml) {
      return std::string(" call") + (parallel ? "+ " : " ") + tag("</", "function_calls>");
    }
    std::string list = "call";
    if (parallel) list += format_ == ToolFormat::kTyped ? " (\"\\n\" call)*" : "+";
    return list + marker(markers::kCallsEnd);
  }

  std::string call_rules() const {
    if (format_ == ToolFormat::kDsml) return "\ncall: " + tools_ + "\n" + rules_ + any_parameter();
    return "\ncall:" + marker(markers::kCallBegin) + "(" + tools_ + ")" +
           marker(markers::kCallEnd) + "\n" + rules_;
  }

  // A parameter of a tool whose parameters are not held to their schema.
  std::string any_parameter() const {
    if (!needs_any_parameter_) return "";
    return "any_parameter: " + tag("<", "parameter name=\"") + " ANY_NAME (" +
           literal("\" string=\"true\">") + " any_text | " + literal("\" string=\"false\">") +
           " any_value " + literal("</") + ") " + dsml() + " " + literal("parameter>\n") +
           "\nANY_NAME: /[^\"\\n]+/\nany_text[suffix=\"</\"]: /(.|\\n)*/\nany_value: %json {}\n";
  }

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
  bool needs_any_parameter_ = false;
};

}  // namespace

Result<std::string> write_tool_grammar(ToolFormat format, const MarkerTokens& tokens,
                                       std::span<const ToolDefinition> tools,
                                       const ToolChoice& choice, bool parallel) {
  using Mode = ToolChoice::Mode;
  GrammarWriter writer(format, tokens);
  bool any = false;
  for (const ToolDefinition& tool : tools) {
    if (choice.mode == Mode::kNamed && tool.name != choice.name) continue;
    const bool held = choice.mode != Mode::kAuto || tool.strict;
    if (Status status = writer.add_tool(tool, held); !status) {
      return std::unexpected(status.error());
    }
    any = true;
  }
  if (!any && choice.mode == Mode::kNamed) {
    return fail(ErrorKind::kInvalid,
                "tool_choice: there is no tool '" + choice.name + "' among the tools");
  }
  if (!any) return fail(ErrorKind::kInvalid, "tool_choice: the request has no tools to call");
  return choice.mode == Mode::kAuto ? writer.finish_optional(parallel)
                                    : writer.finish_forced(parallel);
}

}  // namespace dsm::text
