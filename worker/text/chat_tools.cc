// Tools in the prompt of templates whose text has no place for them.
#include <string>

#include "worker/text/chat_family.h"
#include "worker/text/chat_markers.h"
#include "worker/text/python_json.h"

namespace dsm::text {

Status write_tools(std::span<const ToolDefinition> tools, ToolFormat format, PromptSink& out) {
  out.text("\n\n## Tools\nYou have access to the following tools:\n");
  for (const ToolDefinition& tool : tools) {
    std::string parameters = "{}";
    if (!tool.parameters.empty()) {
      auto schema = parse_json(tool.parameters);
      if (!schema) {
        return fail(ErrorKind::kInvalid,
                    "tools: the parameters of '" + tool.name + "' are not a JSON Schema");
      }
      parameters = python_json(*schema);
    }
    out.text("\n### " + tool.name + "\nDescription: " + tool.description +
             "\n\nParameters: " + parameters + "\n");
  }
  out.text("\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n");
  out.marker(markers::kCallsBegin);
  out.marker(markers::kCallBegin);
  if (format == ToolFormat::kTyped) out.text("function");
  if (format == ToolFormat::kNamed) out.text("tool_call_name");
  out.marker(markers::kSeparator);
  out.text(format == ToolFormat::kTyped ? "tool_call_name\n```json\ntool_call_arguments\n```"
                                        : "tool_call_arguments");
  out.marker(markers::kCallEnd);
  out.text("{{additional_tool_calls}}");
  out.marker(markers::kCallsEnd);
  out.text(
      "\n\nWhere:\n\n- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
      "Schema\n");
  out.text(format == ToolFormat::kTyped
               ? "- For multiple tool calls, put each on a new line\n"
               : "- For multiple tool calls, chain them directly without separators or spaces\n");
  return {};
}

}  // namespace dsm::text
