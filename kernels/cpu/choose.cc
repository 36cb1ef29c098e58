#include "kernels/choose.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/draw.h"

namespace dsm::kernels {
namespace {

struct Candidate {
  float logit;
  std::int32_t token;
};
using Candidates = std::span<Candidate>;

// The order in which candidates are preferred.
bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// Calls f(token) for each token that may be taken, in the order of tokens.
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
Candidate highest(std::span<const float> logits, std::span<const std::uint32_t> allowed) {
  Candidate best{-std::numeric_limits<float>::infinity(), kNoToken};
  for_each_allowed(logits.size(), allowed, [&](std::size_t i) {
    if (best.token == kNoToken) best.token = static_cast<std::int32_t>(i);
    // A value that is not a number compares as not greater, so it is passed over.
    if (logits[i] > best.logit) best = {logits[i], static_cast<std::int32_t>(i)};
  });
  if (best.token == kNoToken) best.token = 0;
  return best;
}

// The smallest set of the likeliest candidates that has the share `top_p` of all; it is moved to
// the front. A vocabulary is large and the set is mostly small: it is sorted piece by piece.
std::size_t nucleus(Candidates all, float best, const Choice& choice) {
  const auto mass = [&](const Candidate& c) { return mass_of(c.logit, best, choice.temperature); };
  std::uint64_t total = 0;
  for (const Candidate& c : all) total += mass(c);
  const std::uint64_t wanted = nucleus_mass(choice.top_p, total);
  std::uint64_t reached = 0;
  std::size_t kept = 0;
  std::size_t sorted = 0;
  while (kept < all.size() && reached < wanted) {
    if (kept == sorted) {
      sorted = std::min(all.size(), std::max<std::size_t>(64, 8 * sorted));
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(kept);
      const auto to = all.begin() + static_cast<std::ptrdiff_t>(sorted);
      if (to != all.end()) std::nth_element(from, to, all.end(), better);
      std::sort(from, to, better);
    }
    reached += mass(all[kept++]);
  }
  return kept;
}

// How many candidates top_k, min_p and top_p leave; those are moved to the front.
std::size_t narrow(Candidates all, float best, const Choice& choice) {
  std::size_t count = all.size();
  if (choice.top_k > 0 && static_cast<std::size_t>(choice.top_k) < count) {
    count = static_cast<std::size_t>(choice.top_k);
    std::nth_element(all.begin(), all.begin() + choice.top_k - 1, all.end(), better);
  }
  if (choice.min_p > 0) {
    const std::uint64_t least = least_mass(choice.min_p);
    const auto kept = std::partition(
        all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count),
        [&](const Candidate& c) { return mass_of(c.logit, best, choice.temperature) >= least; });
    count = static_cast<std::size_t>(kept - all.begin());
  }
  return choice.top_p < 1 ? nucleus(all.first(count), best, choice) : count;
}

}  // namespace

std::int32_t choose_token(std::span<const float> logits, const Choice& choice,
                          std::span<const std::uint32_t> allowed) {
  const Candidate best = highest(logits, allowed);
  // Of infinities no probabilities can be made.
  if (!(choice.temperature > 0) || !std::isfinite(best.logit)) return best.token;
  Leader<double> leader;
  const auto take = [&](float logit, std::int32_t token) {
    draw(leader, logit, token, choice.key, choice.temperature);
  };
  if (!narrows(choice)) {
    for_each_allowed(logits.size(), allowed, [&](std::size_t i) {
      if (!std::isnan(logits[i])) take(logits[i], static_cast<std::int32_t>(i));
    });
    return leader.token;
  }
  // Kept per thread: a step makes no allocation once a vocabulary has been seen.
  thread_local std::vector<Candidate> candidates;
  candidates.clear();
  for_each_allowed(logits.size(), allowed, [&](std::size_t i) {
    if (!std::isnan(logits[i])) candidates.push_back({logits[i], static_cast<std::int32_t>(i)});
  });
  const std::size_t count = narrow(candidates, best.logit, choice);
  for (const Candidate& c : Candidates(candidates).first(count)) take(c.logit, c.token);
  return leader.token;
}

void choose(const ChooseParams& p, int row) {
  const Choice& choice = p.choices[row];
  if (!choice.wanted) return;
  p.tokens[row] = choose_token({p.logits + row * p.ld, static_cast<std::size_t>(p.vocab)}, choice);
}

}  // namespace dsm::kernels
