#include <array>

#include "worker/server/request_parts.h"

namespace dsm::server {
namespace {

using grammar::GrammarSpec;
using grammar::Kind;
using nlohmann::json;

constexpr std::size_t kMaxName = 256;

// The one place where a request says what its output must match; a second one is refused.
class Format {
 public:
  Format(Fields& fields, GenerationOptions& options) : fields_(fields), options_(options) {}

  // `param` is the top-level field that asks for it.
  void set(GrammarSpec grammar, const std::string& param) {
    if (fields_.failed()) return;
    if (options_.format) {
      return fields_.wrong(param, "cannot be combined with " + options_.format->param +
                                      ": an answer can only match one of them");
    }
    options_.format = OutputFormat{.grammar = std::move(grammar), .param = param};
  }

 private:
  Fields& fields_;
  GenerationOptions& options_;
};

// Whether the text is within the bounds of a grammar; says what is wrong when it is not.
bool fits(Fields& fields, const char* name, std::string_view text) {
  if (text.empty()) {
    fields.wrong(name, "must not be empty");
  } else if (text.size() > kMaxGrammarBytes) {
    fields.wrong(name, "must have at most " + std::to_string(kMaxGrammarBytes) + " bytes");
  }
  return !fields.failed();
}

// A schema: an object, or a string that holds one, as vLLM takes it.
std::optional<GrammarSpec> read_schema(Fields& fields, const char* name, bool may_be_string) {
  const json* value = fields.find(name);
  if (value == nullptr) return std::nullopt;
  std::string text;
  if (value->is_object()) {
    text = fields.raw(name);
  } else if (may_be_string && value->is_string() && parse_object(value->get<std::string>())) {
    text = value->get<std::string>();
  } else {
    fields.wrong(name, "must be a JSON Schema");
    return std::nullopt;
  }
  if (!fits(fields, name, text)) return std::nullopt;
  return GrammarSpec{.kind = Kind::kJsonSchema, .text = std::move(text), .choices = {}};
}

std::optional<GrammarSpec> read_text(Fields& fields, const char* name, Kind kind) {
  if (fields.find(name) == nullptr) return std::nullopt;
  GrammarSpec grammar{.kind = kind, .text = "", .choices = {}};
  fields.string(name, kMaxGrammarBytes, grammar.text);
  if (fields.failed() || !fits(fields, name, grammar.text)) return std::nullopt;
  return grammar;
}

std::optional<GrammarSpec> read_choices(Fields& fields, const char* name) {
  const json* value = fields.find(name);
  if (value == nullptr) return std::nullopt;
  GrammarSpec grammar{.kind = Kind::kChoice, .text = "", .choices = {}};
  bool good = value->is_array() && !value->empty() && value->size() <= kMaxGrammarChoices;
  std::size_t bytes = 0;
  for (std::size_t i = 0; good && i < value->size(); ++i) {
    const json& one = (*value)[i];
    good = one.is_string() && !one.get_ref<const std::string&>().empty();
    if (!good) break;
    grammar.choices.push_back(one.get<std::string>());
    bytes += grammar.choices.back().size();
  }
  if (!good || bytes > kMaxGrammarBytes) {
    fields.wrong(name, "must be an array of 1 to " + std::to_string(kMaxGrammarChoices) +
                           " texts that are not empty, " + std::to_string(kMaxGrammarBytes) +
                           " bytes together");
    return std::nullopt;
  }
  return grammar;
}

void read_response_format(Fields& fields, Format& format) {
  auto inner = fields.object("response_format");
  if (!inner) return;
  std::string type;
  inner->string("type", kMaxName, type);
  if (type == "json_object") {
    // Some clients put the schema here: more than "any object".
    const auto schema = read_schema(*inner, "schema", /*may_be_string=*/false);
    format.set(schema.value_or(GrammarSpec{}), "response_format");
  } else if (type == "json_schema") {
    auto wrapped = inner->object("json_schema");
    if (!wrapped) return inner->wrong("json_schema", "is missing");
    // Every schema is kept to, strict or not.
    bool strict = false;
    wrapped->boolean("strict", strict);
    std::string name;
    wrapped->string("name", kMaxName, name);
    const auto schema = read_schema(*wrapped, "schema", /*may_be_string=*/false);
    if (!schema) return wrapped->wrong("schema", "is missing");
    format.set(*schema, "response_format");
  } else if (type != "text") {
    inner->wrong("type", "must be text, json_object or json_schema");
  }
}

void read_structured_outputs(Fields& fields, Format& format) {
  auto inner = fields.object("structured_outputs");
  if (!inner) return;
  const std::string param = "structured_outputs";
  if (auto schema = read_schema(*inner, "json", true)) format.set(std::move(*schema), param);
  if (auto regex = read_text(*inner, "regex", Kind::kRegex)) format.set(std::move(*regex), param);
  if (auto choices = read_choices(*inner, "choice")) format.set(std::move(*choices), param);
  if (auto lark = read_text(*inner, "grammar", Kind::kLark)) format.set(std::move(*lark), param);
  bool any_object = false;
  inner->boolean("json_object", any_object);
  if (any_object) format.set(GrammarSpec{}, param);
  for (const char* name : {"structural_tag", "whitespace_pattern"}) {
    if (inner->find(name) != nullptr) inner->wrong(name, "is not supported by this server");
  }
  for (const char* name : {"disable_any_whitespace", "disable_additional_properties"}) {
    bool wanted = false;
    inner->boolean(name, wanted);
    if (wanted) inner->wrong(name, "is not supported with this value by this server");
  }
}

// The names of the same before structured_outputs.
void read_guided(Fields& fields, Format& format) {
  if (auto schema = read_schema(fields, "guided_json", true)) {
    format.set(std::move(*schema), "guided_json");
  }
  if (auto regex = read_text(fields, "guided_regex", Kind::kRegex)) {
    format.set(std::move(*regex), "guided_regex");
  }
  if (auto choices = read_choices(fields, "guided_choice")) {
    format.set(std::move(*choices), "guided_choice");
  }
  if (auto lark = read_text(fields, "guided_grammar", Kind::kLark)) {
    format.set(std::move(*lark), "guided_grammar");
  }
}

}  // namespace

void read_format(Fields& fields, GenerationOptions& options) {
  Format format(fields, options);
  read_response_format(fields, format);
  read_structured_outputs(fields, format);
  read_guided(fields, format);
  if (!options.format) return;
  const std::string why =
      "cannot be combined with " + options.format->param + ": what matches it has its own end";
  if (options.ignore_eos) fields.wrong("ignore_eos", why);
  if (options.min_tokens > 0) fields.wrong("min_tokens", why);
}

}  // namespace dsm::server
