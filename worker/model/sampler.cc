#include "worker/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace dsm::model {
namespace {

using engine::SamplingParams;
using engine::TokenId;

struct Candidate {
  float logit;
  TokenId id;
};

// The order in which candidates are preferred.
bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

TokenId greedy(std::span<const float> logits) {
  // A value that is not a number compares as not greater, so it is passed over.
  float best = -std::numeric_limits<float>::infinity();
  std::size_t at = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > best) {
      best = logits[i];
      at = i;
    }
  }
  return static_cast<TokenId>(at);
}

// -log(-log(u)) of a uniform u in (0, 1) that only the key decides.
double gumbel(std::uint64_t key, TokenId id) {
  const std::uint64_t bits = mix64(key ^ mix64(static_cast<std::uint64_t>(id)));
  const double u = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
  return -std::log(-std::log(u));
}
// The largest value gumbel() can give: of u = 1 - 2^-54.
constexpr double kMostGumbel = 37.5;

// Softmax numerator relative to the best logit.
double relative(float logit, float best, double temperature) {
  return std::exp((static_cast<double>(logit) - best) / temperature);
}

// The first candidates, in order of preference, that top_k, min_p and top_p leave.
std::size_t narrow(std::vector<Candidate>& candidates, const SamplingParams& params) {
  std::size_t count = candidates.size();
  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < count) {
    count = static_cast<std::size_t>(params.top_k);
    std::nth_element(candidates.begin(), candidates.begin() + params.top_k - 1, candidates.end(),
                     better);
  }
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(count);
  std::sort(candidates.begin(), end, better);
  const float best = candidates[0].logit;
  const double temperature = params.temperature;
  if (params.min_p > 0) {
    std::size_t kept = 1;
    while (kept < count && relative(candidates[kept].logit, best, temperature) >= params.min_p)
      ++kept;
    count = kept;
  }
  if (params.top_p < 1) {
    double total = 0;
    for (std::size_t i = 0; i < count; ++i)
      total += relative(candidates[i].logit, best, temperature);
    double mass = 0;
    std::size_t kept = 0;
    while (kept < count && (kept == 0 || mass < params.top_p * total)) {
      mass += relative(candidates[kept++].logit, best, temperature);
    }
    count = kept;
  }
  return count;
}

}  // namespace

TokenId sample(std::span<const float> logits, const SamplingParams& params, std::int64_t position) {
  if (!(params.temperature > 0)) return greedy(logits);
  // Kept per thread: a step makes no allocation once a vocabulary has been seen.
  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!std::isnan(logits[i])) candidates.push_back({logits[i], static_cast<TokenId>(i)});
  }
  if (candidates.empty()) return greedy(logits);
  std::size_t count = candidates.size();
  if (params.top_k > 0 || params.top_p < 1 || params.min_p > 0) count = narrow(candidates, params);

  const std::uint64_t key = mix64(mix64(params.seed) + static_cast<std::uint64_t>(position));
  double best = -std::numeric_limits<double>::infinity();
  TokenId taken = candidates[0].id;
  for (std::size_t i = 0; i < count; ++i) {
    const double scaled = static_cast<double>(candidates[i].logit) / params.temperature;
    if (scaled + kMostGumbel <= best) continue;  // no noise could lift it above the best
    const double score = scaled + gumbel(key, candidates[i].id);
    if (score > best || (score == best && candidates[i].id < taken)) {
      best = score;
      taken = candidates[i].id;
    }
  }
  return taken;
}

}  // namespace dsm::model
