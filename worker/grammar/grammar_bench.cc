// grammar-bench [tokenizer.json]: the cost of making a factory, of compiling each kind of grammar
// for the first time and again, and of masks and accepted tokens along a document, in microseconds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "worker/grammar/grammar.h"

namespace {

using dsm::engine::TokenId;
using dsm::grammar::GrammarFactory;
using dsm::grammar::GrammarSpec;
using dsm::grammar::Kind;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double quantile(std::vector<double>& times, double q) {
  std::ranges::sort(times);
  return times[static_cast<std::size_t>(q * static_cast<double>(times.size() - 1))];
}

struct Case {
  const char* name;
  GrammarSpec spec;
  std::string text;  // that matches
};

std::vector<Case> cases() {
  std::string properties;
  std::string required;
  std::string document;
  for (int i = 0; i < 60; ++i) {
    const std::string name = "\"field_" + std::to_string(i) + "\"";
    const char* comma = i > 0 ? "," : "";
    properties += comma + name + R"(:{"type":"object","properties":{"title":{"type":"string",)" +
                  R"("maxLength":40},"score":{"type":"number"},"kind":{"enum":["a","b","c"]}},)" +
                  R"("required":["title","score","kind"],"additionalProperties":false})";
    required += comma + name;
    document += comma + name + R"(: {"title": "A title, é", "score": 1.25, "kind": "b"})";
  }
  std::vector<std::string> names;
  names.reserve(500);
  for (int i = 0; i < 500; ++i) names.push_back("choice number " + std::to_string(i));
  return {
      {"JSON object",
       {Kind::kJsonObject, "", {}},
       R"({"name": "Ada", "tags": ["a", "b", {"deep": null}], "n": [1, 2.5, -3e7]})"},
      {"schema, 4 fields",
       {Kind::kJsonSchema,
        R"({"type":"object","properties":{"city":{"type":"string"},"n":{"type":"integer"},
            "ok":{"type":"boolean"},"kind":{"enum":["x","y"]}},
            "required":["city","n","ok","kind"],"additionalProperties":false})",
        {}},
       R"({"city": "Paris", "n": 17, "ok": true, "kind": "y"})"},
      {"schema, 180 fields",
       {Kind::kJsonSchema,
        R"({"type":"object","properties":{)" + properties + R"(},"required":[)" + required +
            R"(],"additionalProperties":false})",
        {}},
       "{" + document + "}"},
      {"regex",
       {Kind::kRegex, R"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2})?Z)", {}},
       "2024-01-31T10:00Z"},
      {"choice of 500", {Kind::kChoice, "", names}, "choice number 499"},
  };
}

}  // namespace

int main(int argc, char** argv) {
  const char* path = argc > 1 ? argv[1] : "models/deepseek-tiny/tokenizer.json";
  auto tokenizer = dsm::text::Tokenizer::load(path);
  if (!tokenizer) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    return 1;
  }
  const std::int32_t vocab = tokenizer->vocab_size();
  const std::vector<TokenId> eos = {tokenizer->eos().value_or(0)};
  const Clock::time_point start = Clock::now();
  auto factory = GrammarFactory::make(*tokenizer, vocab, eos);
  const double factory_time = since(start);
  auto forgetful = GrammarFactory::make(*tokenizer, vocab, eos, /*kept=*/0);
  if (!factory || !forgetful) {
    std::fprintf(stderr, "%s\n", (factory ? forgetful : factory).error().message.c_str());
    return 1;
  }
  std::printf("%d tokens, factory %.0f us\n", vocab, factory_time);
  std::printf("%-20s %10s %10s %10s %10s %10s %10s %7s\n", "", "compile", "again", "mask p50",
              "mask p99", "mask max", "accept p50", "tokens");
  for (const Case& one : cases()) {
    const std::vector<TokenId> tokens =
        tokenizer->encode(one.text, dsm::text::SpecialTokens::kTreatAsText);
    std::vector<double> compile;
    std::vector<double> again;
    std::vector<double> masks;
    std::vector<double> accepts;
    std::vector<std::uint32_t> mask(static_cast<std::size_t>(vocab + 31) / 32);
    for (int round = 0; round < 20; ++round) {
      const Clock::time_point begin = Clock::now();
      const auto first = (*forgetful)->compile(one.spec, std::nullopt);
      compile.push_back(since(begin));
      const Clock::time_point repeated = Clock::now();
      auto constraint = (*factory)->compile(one.spec, std::nullopt);
      if (round > 0) again.push_back(since(repeated));
      if (!constraint) {
        std::fprintf(stderr, "%s\n", constraint.error().message.c_str());
        return 1;
      }
      for (const TokenId token : tokens) {
        const Clock::time_point a = Clock::now();
        (*constraint)->fill_mask(mask);
        masks.push_back(since(a));
        const Clock::time_point b = Clock::now();
        if (!(*constraint)->accept(token)) {
          std::fprintf(stderr, "%s: the text does not match\n", one.name);
          return 1;
        }
        accepts.push_back(since(b));
      }
    }
    std::printf("%-20s %10.0f %10.0f %10.1f %10.1f %10.1f %10.1f %7zu\n", one.name,
                quantile(compile, 0.5), quantile(again, 0.5), quantile(masks, 0.5),
                quantile(masks, 0.99), quantile(masks, 1), quantile(accepts, 0.5), tokens.size());
  }
}
