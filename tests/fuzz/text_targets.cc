// tokenizer.json from anywhere, and output of a model however it is cut.
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzzer.h"
#include "tests/fuzz/mutate.h"
#include "worker/text/chat_markers.h"
#include "worker/text/chat_template.h"
#include "worker/text/output_parser.h"
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
  static constexpr std::string_view kText =
      "What is 17+25? <think> \xE4\xB8\xAD\xE6\x96\x87 12345 \n\n x";
  for (const std::int32_t id : tokenizer->encode_prompt(kText)) {
    expect(id >= 0 && id < tokenizer->vocab_size(), "a token is in the vocabulary");
  }
  const auto ids = tokenizer->encode(kText, text::SpecialTokens::kTreatAsText);
  expect(text::is_valid_utf8(tokenizer->decode(ids, false)), "decoded text is UTF-8");
  expect(tokenizer->least_tokens(kText) <= ids.size(), "the bound of tokens is a bound");
  return true;
}

template <typename T>
const T& need(const Result<T>& made) {
  if (!made) {
    std::fprintf(stderr, "fuzz: %s\n", made.error().message.c_str());
    std::exit(1);
  }
  return *made;
}

const text::Tokenizer& tiny_tokenizer() {
  static const auto kTokenizer = text::Tokenizer::load("models/deepseek-tiny/tokenizer.json");
  return need(kTokenizer);
}

// The input's first byte chooses where the output begins; the others are what the model writes.
bool output(std::string_view input) {
  const text::Tokenizer& tokenizer = tiny_tokenizer();
  static const auto kChat = text::ChatTemplate::by_name(tokenizer, "deepseek-tiny");
  const bool reasoning = !input.empty() && (input[0] & 1) != 0;
  const std::string written = text::to_valid_utf8(input.substr(input.empty() ? 0 : 1));
  for (const auto special : {text::SpecialTokens::kTreatAsText, text::SpecialTokens::kAllow}) {
    const auto parser = need(kChat).output_parser(tokenizer, reasoning, /*tools=*/false);
    text::StopChecker whole({"END", "\n\n\n"}, true);
    std::string content;
    std::string thought;
    std::string shown;
    bool stopped = false;
    const auto take = [&](const text::OutputParser::Delta& delta) {
      expect(text::is_valid_utf8(delta.content) && text::is_valid_utf8(delta.reasoning),
             "a piece is UTF-8");
      content += delta.content;
      thought += delta.reasoning;
      if (stopped) return;
      const auto out = whole.push(delta.content);
      shown += out.text;
      stopped = out.stopped;
    };
    for (const std::int32_t id : tokenizer.encode(written, special)) take(parser->push(id));
    take(parser->finish());
    if (!stopped) shown += whole.flush();
    expect(content.starts_with(shown), "what is shown is the beginning of the answer");
    expect(stopped || shown == content, "without a stop string all of it is shown");
    expect(content.size() + thought.size() <= written.size(), "nothing is added");
  }
  return true;
}

constexpr std::string_view kMarkers[] = {text::markers::kCallsBegin, text::markers::kCallsEnd,
                                         text::markers::kCallBegin, text::markers::kCallEnd,
                                         text::markers::kSeparator};

// An output with calls of tools, as the first byte says by one template or another. Markers that
// are tokens never come out, and a call that begins has a name.
bool calls(std::string_view input) {
  const text::Tokenizer& tokenizer = tiny_tokenizer();
  static const auto kTyped = text::ChatTemplate::by_name(tokenizer, "deepseek-v3");
  static const auto kNamed = text::ChatTemplate::by_name(tokenizer, "deepseek-v3.1");
  static const auto kTags = text::ChatTemplate::by_name(tokenizer, "deepseek-v3.2");
  const unsigned choice = input.empty() ? 0 : static_cast<unsigned char>(input[0]);
  const text::ChatTemplate& chat = need(choice % 3 == 0   ? kTyped
                                        : choice % 3 == 1 ? kNamed
                                                          : kTags);
  const std::string written = text::to_valid_utf8(input.substr(input.empty() ? 0 : 1));
  const auto parser = chat.output_parser(tokenizer, (choice & 4) != 0, (choice & 8) == 0);
  std::size_t bytes = 0;
  int calls = 0;
  const auto take = [&](const text::OutputParser::Delta& delta) {
    for (const std::string* part : {&delta.content, &delta.reasoning}) {
      expect(text::is_valid_utf8(*part), "a piece is UTF-8");
      for (const std::string_view marker : kMarkers) {
        expect(part->find(marker) == std::string::npos, "no marker comes out");
      }
      bytes += part->size();
    }
    for (const text::ToolCallPiece& piece : delta.tool_calls) {
      expect((choice & 8) == 0, "without tools there are no calls");
      expect(piece.index == calls || (piece.index == calls - 1 && piece.name.empty()),
             "calls come one after the other");
      expect(piece.index < calls || !piece.name.empty(), "a call begins with its name");
      calls = piece.index + 1;
    }
  };
  for (const std::int32_t id : tokenizer.encode(written, text::SpecialTokens::kAllow)) {
    take(parser->push(id));
  }
  take(parser->finish());
  expect(bytes <= written.size(), "nothing is added");
  return calls > 0;
}

constexpr fuzz::Target kTargets[] = {
    {"tokenizer", tokenizer}, {"output", output}, {"calls", calls}};

}  // namespace

int main(int argc, char** argv) {
  return dsm::fuzz::fuzz_main(argc, argv, kTargets);
}
