#include <algorithm>
#include <cctype>

#include "worker/server/request_parts.h"

namespace dsm::server {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxDescription = 64 * 1024;

bool is_tool_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxToolName && std::ranges::all_of(name, [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.' ||
           c == ':';
  });
}

// {"type": "function", "function": {"name", "description", "parameters", "strict"}}
std::optional<text::ToolDefinition> read_tool(Fields& tool) {
  std::string type;
  tool.string("type", 64, type);
  if (type != "function") tool.wrong("type", "must be function");
  auto function = tool.object("function");
  if (!function) {
    tool.wrong("function", "is missing");
    return std::nullopt;
  }
  text::ToolDefinition made;
  function->string("name", kMaxToolName, made.name);
  if (!is_tool_name(made.name)) {
    function->wrong("name", "must be 1 to " + std::to_string(kMaxToolName) +
                                " letters, digits, '_', '-', '.' or ':'");
  }
  function->string("description", kMaxDescription, made.description);
  function->boolean("strict", made.strict);
  if (function->object("parameters")) made.parameters = function->raw("parameters");
  if (tool.failed()) return std::nullopt;
  return made;
}

void read_definitions(Fields& fields, std::vector<text::ToolDefinition>& tools) {
  std::size_t bytes = 0;
  for (Fields& tool : fields.objects("tools", kMaxTools)) {
    auto made = read_tool(tool);
    if (!made) return;
    if (std::ranges::find(tools, made->name, &text::ToolDefinition::name) != tools.end()) {
      return fields.wrong("tools", "has two tools with the same name");
    }
    bytes += made->name.size() + made->description.size() + made->parameters.size();
    if (bytes > kMaxToolBytes) {
      return fields.wrong("tools", "must have at most " + std::to_string(kMaxToolBytes) + " bytes");
    }
    tools.push_back(std::move(*made));
  }
}

// {"type": "function", "function": {"name"}}
void read_named_choice(Fields& fields, const std::vector<text::ToolDefinition>& tools,
                       ToolChoice& choice) {
  auto named = fields.object("tool_choice");
  if (!named) return;
  std::string type;
  named->string("type", 64, type);
  auto function = named->object("function");
  if (type != "function" || !function) {
    return fields.wrong("tool_choice", R"(must be none, auto, required, or {"type": "function", )"
                                       R"("function": {"name": ...}})");
  }
  function->string("name", kMaxToolName, choice.name);
  if (std::ranges::find(tools, choice.name, &text::ToolDefinition::name) == tools.end()) {
    return fields.wrong("tool_choice", "names a function that is not among the tools");
  }
  choice.kind = ToolChoice::Kind::kNamed;
}

void read_choice(Fields& fields, const std::vector<text::ToolDefinition>& tools,
                 ToolChoice& choice) {
  using Kind = ToolChoice::Kind;
  choice.kind = tools.empty() ? Kind::kNone : Kind::kAuto;
  const json* value = fields.find("tool_choice");
  if (value == nullptr) return;
  if (value->is_object()) return read_named_choice(fields, tools, choice);
  if (*value == "none") {
    choice.kind = Kind::kNone;
  } else if (*value == "required") {
    choice.kind = Kind::kRequired;
    if (tools.empty()) fields.wrong("tool_choice", "needs tools");
  } else if (*value != "auto") {
    fields.wrong("tool_choice", "must be none, auto, required or a function");
  }
}

}  // namespace

void read_tools(Fields& fields, ChatRequest& request) {
  std::vector<text::ToolDefinition>& tools = request.template_options.tools;
  read_definitions(fields, tools);
  if (fields.failed()) return;
  read_choice(fields, tools, request.tool_choice);
  fields.boolean("parallel_tool_calls", request.parallel_tool_calls);
  if (request.tool_choice.kind == ToolChoice::Kind::kNone) {
    tools.clear();  // what the model is not told of it cannot call
    return;
  }
  const std::string why = ": an answer that may be a tool call cannot be held to another format";
  if (request.options.format) {
    fields.wrong(request.options.format->param, "cannot be combined with tools" + why);
  }
  const bool automatic = request.tool_choice.kind == ToolChoice::Kind::kAuto;
  if (automatic && std::ranges::none_of(tools, &text::ToolDefinition::strict)) return;
  const std::string forced = automatic
                                 ? "cannot be combined with a strict tool"
                                 : "cannot be combined with a tool_choice that requires a call";
  if (request.options.ignore_eos) fields.wrong("ignore_eos", forced);
  if (request.options.min_tokens > 0) fields.wrong("min_tokens", forced);
}

}  // namespace dsm::server
