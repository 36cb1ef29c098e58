#include "worker/model/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace dsm::model {
namespace {

using engine::SamplingParams;
using engine::TokenId;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  float logit;
  TokenId id;
};

// The order in which candidates are preferred.
bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Calls f(token) for each token that may be taken, in the order of ids.
template <typename F>
void for_each_allowed(std::size_t vocab, std::span<const std::uint32_t> allowed, F&& f) {
  if (allowed.empty()) {
    for (std::size_t i = 0; i < vocab; ++i) f(i);
    return;
  }
  const std::size_t words = std::min(allowed.size(), (vocab + 31) / 32);
  for (std::size_t w = 0; w < words; ++w) {
    for (std::uint32_t bits = allowed[w]; bits != 0; bits &= bits - 1) {
      const std::size_t i = w * 32 + static_cast<std::size_t>(std::countr_zero(bits));
      if (i < vocab) f(i);
    }
  }
}

// The highest logit's token; where no logit is above minus infinity, the first token that is
// allowed.
TokenId greedy(std::span<const float> logits, std::span<const std::uint32_t> allowed) {
  float best = -kInfinity;
  std::size_t at = logits.size();
  for_each_allowed(logits.size(), allowed, [&](std::size_t i) {
    // A value that is not a number compares as not greater, so it is passed over.
    if (at == logits.size() || logits[i] > best) {
      best = std::isnan(logits[i]) ? -kInfinity : logits[i];
      at = i;
    }
  });
  return at == logits.size() ? 0 : static_cast<TokenId>(at);
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

using Candidates = std::span<Candidate>;

// The smallest set of the likeliest candidates that has the share `top_p` of all; it is moved to
// the front. A vocabulary is large and the set is mostly small: it is sorted piece by piece.
std::size_t nucleus(Candidates all, float best, double temperature, float top_p) {
  double total = 0;
  for (const Candidate& c : all) total += relative(c.logit, best, temperature);
  double mass = 0;
  std::size_t kept = 0;
  std::size_t sorted = 0;
  while (kept < all.size() && (kept == 0 || mass < top_p * total)) {
    if (kept == sorted) {
      sorted = std::min(all.size(), std::max<std::size_t>(64, 8 * sorted));
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(kept);
      const auto to = all.begin() + static_cast<std::ptrdiff_t>(sorted);
      if (to != all.end()) std::nth_element(from, to, all.end(), better);
      std::sort(from, to, better);
    }
    mass += relative(all[kept++].logit, best, temperature);
  }
  return kept;
}

// How many candidates top_k, min_p and top_p leave; those are moved to the front.
std::size_t narrow(Candidates all, float best, const SamplingParams& params) {
  std::size_t count = all.size();
  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < count) {
    count = static_cast<std::size_t>(params.top_k);
    std::nth_element(all.begin(), all.begin() + params.top_k - 1, all.end(), better);
  }
  const double temperature = params.temperature;
  if (params.min_p > 0) {
    const auto kept = std::partition(
        all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count),
        [&](const Candidate& c) { return relative(c.logit, best, temperature) >= params.min_p; });
    count = static_cast<std::size_t>(kept - all.begin());
  }
  if (params.top_p < 1) count = nucleus(all.first(count), best, temperature, params.top_p);
  return count;
}

}  // namespace

TokenId sample(std::span<const float> logits, const SamplingParams& params, std::int64_t position,
               std::span<const std::uint32_t> allowed) {
  if (!(params.temperature > 0)) return greedy(logits, allowed);
  // Kept per thread: a step makes no allocation once a vocabulary has been seen.
  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  float highest = -kInfinity;
  for_each_allowed(logits.size(), allowed, [&](std::size_t i) {
    if (std::isnan(logits[i])) return;
    highest = std::max(highest, logits[i]);
    candidates.push_back({logits[i], static_cast<TokenId>(i)});
  });
  // Of infinities no probabilities can be made.
  if (!std::isfinite(highest)) return greedy(logits, allowed);
  std::size_t count = candidates.size();
  if (params.top_k > 0 || params.top_p < 1 || params.min_p > 0) {
    count = narrow(candidates, highest, params);
  }

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
