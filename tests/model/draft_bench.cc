// What drafts of the multi-token-prediction layer are worth on the default model's evaluation:
//   build/release/draft-bench [drafts] [threads] [questions]
// Answers each question greedily, once a token at a time and once with drafts, and prints how many
// drafts are taken, by their place, and the time of both ways.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "tests/model/bench_model.h"
#include "worker/text/tokenizer.h"

namespace {

using namespace dsm;
using Clock = std::chrono::steady_clock;
using Tokens = std::vector<engine::TokenId>;

constexpr std::size_t kMostTokens = 96;

// The prompt form of the model's card.
std::string prompt_of(const nlohmann::json& question) {
  std::string text = "<｜begin▁of▁sentence｜>";
  for (const auto& message : question["messages"]) {
    const auto content = message["content"].get<std::string>();
    if (message["role"] == "system") text += content;
    if (message["role"] == "user") text += "<｜User｜>" + content;
    if (message["role"] == "assistant") {
      text += "<｜Assistant｜></think>" + content + "<｜end▁of▁sentence｜>";
    }
  }
  return text + "<｜Assistant｜>" + (question["thinking"].get<bool>() ? "<think>" : "</think>");
}

std::vector<Tokens> prompts(std::size_t most) {
  const auto tokenizer = text::Tokenizer::load(std::string(model::kBenchModel) + "/tokenizer.json");
  if (!tokenizer) {
    std::fprintf(stderr, "%s\n", tokenizer.error().message.c_str());
    std::exit(1);
  }
  std::vector<Tokens> all;
  std::ifstream file(std::string(model::kBenchModel) + "/eval.jsonl");
  for (std::string line; all.size() < most && std::getline(file, line);) {
    all.push_back(
        tokenizer->encode(prompt_of(nlohmann::json::parse(line)), text::SpecialTokens::kAllow));
  }
  return all;
}

struct Tally {
  double seconds = 0;
  std::size_t steps = 0;
  std::size_t tokens = 0;
  std::vector<std::size_t> offered;  // by place
  std::vector<std::size_t> taken;
};

engine::TokenId best_of(std::span<const float> logits) {
  return static_cast<engine::TokenId>(std::max_element(logits.begin(), logits.end()) -
                                      logits.begin());
}

// The greedy answer; drafts are checked in the step after the one that made them.
Tokens answer(model::RankModel& model, const Tokens& prompt, std::int32_t most_drafts,
              engine::TokenId eos, Tally& tally) {
  model::Alone comm;
  const auto vocab = static_cast<std::size_t>(model.config().vocab_size);
  const std::size_t end = prompt.size() + kMostTokens;
  std::vector<engine::BlockId> table(end / engine::kBlockTokens + 2);
  std::iota(table.begin(), table.end(), 0);
  Tokens text = prompt;
  std::size_t done = 0;
  std::size_t drafts = 0;  // at the end of the text
  const auto begin = Clock::now();
  while (text.size() - drafts < end && text[text.size() - drafts - 1] != eos) {
    engine::Row row;
    row.start = static_cast<std::int32_t>(done);
    row.tokens.assign(text.begin() + static_cast<std::ptrdiff_t>(done), text.end());
    row.block_table = table;
    row.logits = 1;
    const engine::Batch batch{1, {row}};
    const bool verify = drafts > 0;
    const auto logits = verify ? model.forward_all(batch, comm) : model.forward(batch, comm);
    std::size_t kept = text.size() - drafts;
    const std::size_t sure = kept;
    const auto choice = [&] {
      return best_of(verify ? logits.subspan((kept - 1 - done) * vocab, vocab) : logits);
    };
    engine::TokenId next = choice();
    while (kept < text.size() && text[kept] == next && next != eos) {
      ++kept;
      next = choice();
    }
    for (std::size_t i = 0; i < drafts && i <= kept - sure; ++i) {
      ++tally.offered[i];
      if (i < kept - sure || text[sure + i] == next) ++tally.taken[i];
    }
    text.resize(kept);
    text.push_back(next);
    drafts = 0;
    if (most_drafts > 0 && next != eos) {
      const model::DraftRow asked{
          .kept = static_cast<std::int32_t>(kept - done), .next = next, .wanted = most_drafts};
      const auto span = model.draft(batch, {&asked, 1}, comm);
      text.insert(text.end(), span.begin(), std::find(span.begin(), span.end(), -1));
      drafts = text.size() - kept - 1;
    }
    done = kept;
    ++tally.steps;
  }
  tally.seconds += std::chrono::duration<double>(Clock::now() - begin).count();
  text.resize(std::min(text.size() - drafts, end));
  tally.tokens += text.size() - prompt.size();
  return text;
}

void print(const char* what, const Tally& t) {
  std::printf("%-8s %6zu tokens in %6zu steps (%.2f per step), %7.1f tok/s\n", what, t.tokens,
              t.steps, static_cast<double>(t.tokens) / static_cast<double>(t.steps),
              static_cast<double>(t.tokens) / t.seconds);
}

}  // namespace

int main(int argc, char** argv) {
  const int drafts = std::max(1, argc > 1 ? std::atoi(argv[1]) : 2);
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  const auto questions = static_cast<std::size_t>(argc > 3 ? std::atoi(argv[3]) : 320);
  const auto model = model::load_bench_model({.threads = threads, .drafts = true}, 64);
  const auto places = static_cast<std::size_t>(drafts);
  Tally plain;
  Tally drafted{.offered = std::vector<std::size_t>(places),
                .taken = std::vector<std::size_t>(places)};
  const engine::TokenId eos = model->config().eos_tokens.at(0);
  std::size_t different = 0;
  for (const auto& prompt : prompts(questions)) {
    const auto wanted = answer(*model, prompt, 0, eos, plain);
    different += answer(*model, prompt, drafts, eos, drafted) != wanted ? 1 : 0;
  }
  std::printf("%s, %d threads, %d drafts\n", std::string(model->device()).c_str(), threads, drafts);
  print("plain", plain);
  print("drafts", drafted);
  for (std::size_t i = 0; i < places; ++i) {
    std::printf("draft %zu: taken %zu of %zu (%.1f %%)\n", i + 1, drafted.taken[i],
                drafted.offered[i],
                100.0 * static_cast<double>(drafted.taken[i]) /
                    static_cast<double>(std::max<std::size_t>(1, drafted.offered[i])));
  }
  std::printf("answers that differ: %zu\n", different);
  return different == 0 ? 0 : 1;
}
