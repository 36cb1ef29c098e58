#include "worker/engine/probe.h"

#include <algorithm>
#include <string>
#include <utility>

namespace dsm::engine {
namespace {

constexpr int kDefaultPrompt = 16;
constexpr int kDefaultAnswer = 4;

std::unexpected<Error> wrong(std::string message) {
  return fail(ErrorKind::kInternal, "the answer to the probe is wrong: " + std::move(message));
}

std::string place(std::size_t i, int of) {
  return "token " + std::to_string(i + 1) + " of " + std::to_string(of);
}

// Whether the model held `wanted` for about as likely as what it chose.
bool as_good(const PositionLogprobs& position, TokenId wanted) {
  const auto it = std::ranges::find(position.top, wanted, &TokenLogprob::token);
  return it != position.top.end() && position.chosen.logprob - it->logprob <= ProbeRun::kTie;
}

}  // namespace

Probe default_probe(int vocab_size, int context_limit) {
  Probe probe;
  const int prompt = std::clamp(context_limit - kDefaultAnswer, 1, kDefaultPrompt);
  for (int i = 0; i < prompt; ++i) {
    probe.prompt.push_back(static_cast<TokenId>(std::int64_t{vocab_size} * i / prompt));
  }
  probe.answer_tokens = std::clamp(context_limit - prompt, 1, kDefaultAnswer);
  return probe;
}

ProbeRun::ProbeRun(const Probe& probe, int max_batch_tokens, int rank)
    : probe_(probe), max_batch_tokens_(max_batch_tokens), rank_(rank) {}

int ProbeRun::chunk() const {
  const int known = static_cast<int>(probe_.prompt.size() + answer_.size());
  return std::min(known - computed_, max_batch_tokens_);
}

std::optional<Batch> ProbeRun::next() const {
  if (std::ssize(answer_) == probe_.answer_tokens) return std::nullopt;
  std::vector<TokenId> text = probe_.prompt;
  for (const PositionLogprobs& position : answer_) text.push_back(position.chosen.token);
  const int end = computed_ + chunk();
  Row row;
  row.sequence = kSequence;
  row.start = computed_;
  row.tokens.assign(text.begin() + computed_, text.begin() + end);
  row.block_table = {0};
  row.rank = rank_;
  row.choices = end == std::ssize(text) ? 1 : 0;
  row.logits = row.choices;
  if (row.choices == 0) row.next = text[static_cast<std::size_t>(end)];
  row.sampling.logprobs = kMaxLogprobs;
  row.context.check_finite = true;
  return Batch{.id = 0, .rows = {std::move(row)}};
}

Status ProbeRun::take(const Samples& samples) {
  computed_ += chunk();
  if (computed_ < std::ssize(probe_.prompt)) return {};  // nothing was chosen yet
  if (samples.samples.size() != 1 || samples.samples[0].tokens.size() != 1) {
    return wrong("rank 0 gave none");
  }
  const Sample& sample = samples.samples[0];
  if (!sample.all_finite) {
    return wrong("a logit of " + place(answer_.size(), probe_.answer_tokens) +
                 " is not a finite number");
  }
  PositionLogprobs position;
  if (!sample.logprobs.empty()) position = sample.logprobs[0];
  position.chosen.token = sample.tokens[0];
  answer_.push_back(std::move(position));
  return {};
}

Status ProbeRun::compare_expected() const {
  return compare_tokens(probe_.expected, "the checkpoint's probe.json");
}

Status ProbeRun::compare_first(const std::vector<PositionLogprobs>& first) const {
  std::vector<TokenId> wanted;
  wanted.reserve(first.size());
  for (const PositionLogprobs& position : first) wanted.push_back(position.chosen.token);
  auto same = compare_tokens(wanted, "the first epoch of this process");
  if (!same || !probe_.exact || first.empty()) return same;
  for (std::size_t i = 0; i < answer_.size(); ++i) {
    if (answer_[i] == first[i]) continue;
    return wrong(place(i, probe_.answer_tokens) +
                 " has other probabilities than in the first epoch of this process");
  }
  return {};
}

Status ProbeRun::compare_tokens(std::span<const TokenId> wanted, std::string_view by) const {
  for (std::size_t i = 0; i < std::min(wanted.size(), answer_.size()); ++i) {
    const TokenId chosen = answer_[i].chosen.token;
    if (chosen == wanted[i]) continue;
    if (!probe_.exact && as_good(answer_[i], wanted[i])) return {};  // what follows is another text
    return wrong(place(i, probe_.answer_tokens) + " is " + std::to_string(chosen) + ", by " +
                 std::string(by) + " it is " + std::to_string(wanted[i]));
  }
  return {};
}

}  // namespace dsm::engine
