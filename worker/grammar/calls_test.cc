// Answers that may call tools, some of them strict: what the grammar of each way of writing calls
// accepts, with markers that are tokens and with markers that are spelled.
#include <gmock/gmock.h>

#include <ostream>

#include "worker/grammar/test_grammar.h"
#include "worker/text/chat_template.h"
#include "worker/text/test_tokenizer.h"

namespace dsm::grammar {
namespace {

const std::vector<text::ToolDefinition> kTools = {
    {.name = "get_weather",
     .description = "",
     .parameters = R"({"properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                       "required": ["city", "days"], "additionalProperties": false})",
     .strict = true},
    {.name = "note",
     .description = "",
     .parameters = R"({"properties": {"text": {"type": "string"}}, "required": ["text"],
                       "uniqueItems": true})"}};

struct Form {
  const char* name;
  const char* chat_template;
  std::vector<std::string> tokens;  // markers that are tokens, beside those of turns
  std::string begin;                // of all calls
  std::string end;
  // Of a call without and with the arguments; `days` and `any` are JSON.
  std::string (*weather)(const std::string& tool, const std::string& days);
  std::string (*note)(const std::string& any);
};

void PrintTo(const Form& form, std::ostream* out) {
  *out << form.name;
}

std::string json_arguments(const std::string& days) {
  return R"({"city": "Paris", "days": )" + days + "}";
}

std::string typed_call(const std::string& name, const std::string& arguments) {
  return "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" + name + "\n```json\n" + arguments +
         "\n```<｜tool▁call▁end｜>";
}
std::string typed_weather(const std::string& tool, const std::string& days) {
  return typed_call(tool, json_arguments(days));
}
std::string typed_note(const std::string& any) {
  return typed_call("note", R"({"what": )" + any + "}");
}

std::string named_call(const std::string& name, const std::string& arguments) {
  return "<｜tool▁call▁begin｜>" + name + "<｜tool▁sep｜>" + arguments + "<｜tool▁call▁end｜>";
}
std::string named_weather(const std::string& tool, const std::string& days) {
  return named_call(tool, json_arguments(days));
}
std::string named_note(const std::string& any) {
  return named_call("note", R"({"what": )" + any + "}");
}

std::string parameter(const std::string& name, const char* is_text, const std::string& value) {
  return "<｜DSML｜parameter name=\"" + name + "\" string=\"" + is_text + "\">" + value +
         "</｜DSML｜parameter>\n";
}
std::string dsml_weather(const std::string& tool, const std::string& days) {
  return "<｜DSML｜invoke name=\"" + tool + "\">\n" + parameter("city", "true", "Paris") +
         parameter("days", "false", days) + "</｜DSML｜invoke>\n";
}
std::string dsml_note(const std::string& any) {
  return "<｜DSML｜invoke name=\"note\">\n" + parameter("what", "false", any) +
         parameter("why", "true", "a < b") + "</｜DSML｜invoke>\n";
}

const std::vector<std::string> kCallTokens = {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
                                              "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
                                              "<｜tool▁sep｜>"};

std::vector<Form> forms() {
  const std::string begin = kCallTokens[0];
  const std::string end = kCallTokens[1];
  const std::string dsml_begin = "\n\n<｜DSML｜function_calls>\n";
  const std::string dsml_end = "</｜DSML｜function_calls>";
  return {
      {"V31Tokens", "deepseek-v3.1", kCallTokens, begin, end, named_weather, named_note},
      {"V31Spelled", "deepseek-v3.1", {}, begin, end, named_weather, named_note},
      {"V3Tokens", "deepseek-v3-0324", kCallTokens, begin, end, typed_weather, typed_note},
      {"V3Spelled", "deepseek-v3-0324", {}, begin, end, typed_weather, typed_note},
      {"V32Tokens", "deepseek-v3.2", {"｜DSML｜"}, dsml_begin, dsml_end, dsml_weather, dsml_note},
      {"V32Spelled", "deepseek-v3.2", {}, dsml_begin, dsml_end, dsml_weather, dsml_note}};
}

class Calls : public ::testing::TestWithParam<Form> {
 protected:
  Calls() {
    text::TokenizerJson file;
    file.all_bytes();
    for (const char* marker : {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>",
                               "<｜Assistant｜>", "<think>", "</think>"}) {
      file.added(marker);
    }
    for (const std::string& marker : GetParam().tokens) file.added(marker);
    tokenizer_ = std::make_unique<text::Tokenizer>(file.build());
    eos_ = tokenizer_->special("<｜end▁of▁sentence｜>").value_or(-1);
    const std::vector<engine::TokenId> eos = {eos_};
    auto factory = GrammarFactory::make(*tokenizer_, tokenizer_->vocab_size(), eos);
    if (!factory) throw std::runtime_error(factory.error().message);
    factory_ = std::move(*factory);
    auto chat = text::ChatTemplate::by_name(*tokenizer_, GetParam().chat_template);
    if (!chat) throw std::runtime_error(chat.error().message);
    auto grammar = chat->tool_grammar(kTools, {.mode = text::ToolChoice::Mode::kAuto}, true);
    if (!grammar) throw std::runtime_error(grammar.error().message);
    auto constraint = factory_->compile(lark(*grammar), std::nullopt);
    if (!constraint) throw std::runtime_error(constraint.error().message + " in\n" + *grammar);
    constraint_ = std::move(*constraint);
  }

  Mask mask() {
    Mask mask(static_cast<std::size_t>(tokenizer_->vocab_size() + 31) / 32);
    EXPECT_TRUE(constraint_->fill_mask(mask));
    return mask;
  }
  bool may_end() { return allows(mask(), eos_); }
  // Takes the text's tokens up to the first that may not come, and takes them back again. What may
  // not come of the text.
  std::string refused(const std::string& text) {
    const auto tokens = tokenizer_->encode(text, text::SpecialTokens::kAllow);
    std::size_t taken = 0;
    while (taken < tokens.size() && allows(mask(), tokens[taken]) &&
           constraint_->accept(tokens[taken])) {
      ++taken;
    }
    const bool ends = taken < tokens.size() || may_end();
    constraint_->rollback(static_cast<int>(taken));
    const std::vector<engine::TokenId> rest(tokens.begin() + static_cast<std::ptrdiff_t>(taken),
                                            tokens.end());
    return ends ? tokenizer_->decode(rest, false) : "the end";
  }

  std::string calls(const std::string& inside) const {
    return GetParam().begin + inside + GetParam().end;
  }

  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<GrammarFactory> factory_;
  ConstraintPtr constraint_;
  engine::TokenId eos_ = -1;
};

TEST_P(Calls, TheAnswerMayBeTextAlone) {
  EXPECT_EQ(refused(""), "");
  EXPECT_EQ(refused("Is 3 < 4?\n\nYes, <b>it</b> is {\"a\": 1} ｜"), "");
  EXPECT_EQ(refused("<think>Hm.</think>Yes."), "");
  EXPECT_EQ(refused("in the thought</think>Yes."), "");
}

TEST_P(Calls, ACallOfAStrictToolMatchesItsSchema) {
  const Form& form = GetParam();
  const std::string right = form.weather("get_weather", "3");
  EXPECT_EQ(refused(calls(right)), "");
  EXPECT_EQ(refused("Let me look." + calls(right)), "");
  EXPECT_NE(refused("Let me look." + form.begin + right), "") << "it is not over";
  EXPECT_THAT(refused("Let me look." + calls(form.weather("get_weather", "\"three\""))),
              ::testing::StartsWith("\"three\""));
  EXPECT_THAT(refused(calls(form.weather("get_time", "3"))), ::testing::StartsWith("time"));
  EXPECT_THAT(refused(calls(right) + "And"), ::testing::StartsWith("And"));
}

TEST_P(Calls, SeveralCallsFollowEachOther) {
  const std::string between = GetParam().weather == typed_weather ? "\n" : "";
  EXPECT_EQ(refused(calls(GetParam().weather("get_weather", "3") + between +
                          GetParam().weather("get_weather", "-1"))),
            "");
}

TEST_P(Calls, ACallMayEndTheThought) {
  const Form& form = GetParam();
  EXPECT_EQ(refused("I need <b>. " + calls(form.weather("get_weather", "3"))), "");
  EXPECT_EQ(refused("Hm.</think>So: " + calls(form.weather("get_weather", "3"))), "");
  EXPECT_THAT(refused("Hm.</think>So: " + calls(form.weather("get_weather", "[]"))),
              ::testing::StartsWith("[]"));
}

TEST_P(Calls, TheArgumentsOfOtherToolsAreFree) {
  EXPECT_EQ(refused(calls(GetParam().note(R"({"any": [1, null]})"))), "");
}

TEST_P(Calls, TheOuterMarkerIsNotLeftOut) {
  const Form& form = GetParam();
  // Without it V3.2's parser sees text, where the mark is none either.
  const bool is_text = form.weather == dsml_weather && form.tokens.empty();
  EXPECT_EQ(refused("x " + form.weather("get_weather", "3")).empty(), is_text);
}

INSTANTIATE_TEST_SUITE_P(Forms, Calls, ::testing::ValuesIn(forms()),
                         [](const auto& form) { return std::string(form.param.name); });

}  // namespace
}  // namespace dsm::grammar
