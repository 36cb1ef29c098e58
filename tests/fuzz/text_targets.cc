// tokenizer.json from anywhere, and output of a model however it is cut.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzzer.h"
#include "tests/fuzz/mutate.h"
#include "worker/text/reasoning_parser.h"
#include "worker/text/stop_checker.h"
#include "worker/text/tokenizer.h"
#include "worker/text/utf8.h"

namespace {

using namespace dsm;
using fuzz::expect;

bool tokenizer(std::string_view input) {
  const auto tokenizer = text::Tokenizer::parse(input, "");
  if (!tokenizer) {
    expect(!tokenizer.error().message.empty(), "a refusal says why");
    return false;
  }
  constexpr std::string_view kText = "What is 17+25? <think> \xE4\xB8\xAD\xE6\x96\x87 12345 \n\n x";
  for (const std::int32_t id : tokenizer->encode_prompt(kText)) {
    expect(id >= 0 && id < tokenizer->vocab_size(), "a token is in the vocabulary");
  }
  const auto ids = tokenizer->encode(kText, text::SpecialTokens::kTreatAsText);
  expect(text::is_valid_utf8(tokenizer->decode(ids, false)), "decoded text is UTF-8");
  expect(tokenizer->least_tokens(kText) <= ids.size(), "the bound of tokens is a bound");
  return true;
}

// The input's first byte chooses where the output begins; the others are what the model writes.
bool output(std::string_view input) {
  static const auto tokenizer = text::Tokenizer::load("models/deepseek-tiny/tokenizer.json");
  if (!tokenizer) {
    std::fprintf(stderr, "fuzz: %s\n", tokenizer.error().message.c_str());
    std::exit(1);
  }
  const bool reasoning = !input.empty() && (input[0] & 1) != 0;
  const std::string written = text::to_valid_utf8(input.substr(input.empty() ? 0 : 1));
  for (const auto special : {text::SpecialTokens::kTreatAsText, text::SpecialTokens::kAllow}) {
    text::ReasoningParser parser(*tokenizer, reasoning);
    text::StopChecker whole({"END", "\n\n\n"}, true);
    std::string content;
    std::string thought;
    std::string shown;
    bool stopped = false;
    const auto take = [&](const text::ReasoningParser::Delta& delta) {
      expect(text::is_valid_utf8(delta.content) && text::is_valid_utf8(delta.reasoning),
             "a piece is UTF-8");
      content += delta.content;
      thought += delta.reasoning;
      if (stopped) return;
      const auto out = whole.push(delta.content);
      shown += out.text;
      stopped = out.stopped;
    };
    for (const std::int32_t id : tokenizer->encode(written, special)) take(parser.push(id));
    take(parser.finish());
    if (!stopped) shown += whole.flush();
    expect(content.starts_with(shown), "what is shown is the beginning of the answer");
    expect(stopped || shown == content, "without a stop string all of it is shown");
    expect(content.size() + thought.size() <= written.size(), "nothing is added");
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr dsm::fuzz::Target kTargets[] = {{"tokenizer", tokenizer}, {"output", output}};
  return dsm::fuzz::fuzz_main(argc, argv, kTargets);
}
