// A row whose choice is narrowed by top_k, min_p and top_p, for many thread blocks: which tokens
// stay is found in two steps.
//
// Tokens fall into bins by how far they are below the best one, so bins are in the order of
// preference. First the blocks add up the bins' tokens and masses, and of these sums the last block
// finds the bins in which the last token that stays may be. Then they draw from the tokens before
// these bins and list those in them, the open ones; the last block finds which of them stay and
// draws from these, too.
//
// Functions with shared variables are static (leaders.cuh).
//
// What is added up are integers and the best score is the best in any order, so neither the bins
// nor how many blocks there are changes the token.
#pragma once

#include "kernels/choose.h"
#include "kernels/cuda/last_block.cuh"
#include "kernels/cuda/leaders.cuh"
#include "kernels/cuda/numbers.h"

namespace dsm::kernels::cuda {

inline constexpr int kRowThreads = 1024;
// Two for each thread.
inline constexpr int kBinBits = 11;
inline constexpr int kBins = 1 << kBinBits;
static_assert(kBins == 2 * kRowThreads && kMaxVocab <= 1 << 2 * kBinBits);
// Tokens so far below the best one have no mass, and are never drawn beside it: noise is between
// -3.7 and 36.8 (noise_of()). They are the last bin's, in which nothing has to be found.
inline constexpr double kReach = 44.0;
inline constexpr int kLastBin = kBins - 1;
inline constexpr int kNoBin = -1;
// Open tokens that have a place in a row's list. More, as of logits that are all equal, are looked
// for among all tokens.
inline constexpr int kMostOpen = 4096;

struct NarrowedRow {
  const float* logits;
  int vocab;
  float best;
  Choice choice;
  std::uint64_t least;  // mass

  __device__ NarrowedRow(const ChooseParams& p, std::int64_t row, float highest)
      : logits(p.logits + row * p.ld),
        vocab(p.vocab),
        best(highest),
        choice(p.choices[row]),
        least(least_mass(choice.min_p)) {}

  // Never falls from a token to the next in the order of preference, as rounding never turns two
  // numbers around.
  __device__ int bin(float logit) const {
    const double below = -((static_cast<double>(logit) - best) / choice.temperature);
    const double at = below * (kLastBin / kReach);
    return at < kLastBin ? static_cast<int>(at) : kLastBin;
  }
  // Zero of tokens that min_p leaves out.
  __device__ std::uint64_t mass(float logit) const {
    const std::uint64_t mine = mass_of(logit, best, choice.temperature);
    return mine >= least ? mine : 0;
  }
  __device__ void draw_from(Leader<double>& drawn, float logit, int token) const {
    if (least > 0 && mass(logit) == 0) return;
    draw(drawn, logit, token, choice.key, choice.temperature);
  }
};

// What bins say of a row's choice. As it is made here no token is open.
struct Cut {
  // The last token that stays is in one of these bins. Those before them stay, but for min_p.
  int from = kLastBin;
  int to = kNoBin;
  // The bin in which top_k ends, and how many of its tokens stay; kNoBin: it leaves all.
  int counted = kNoBin;
  std::uint64_t count_left = 0;
  std::uint64_t mass_before_counted = 0;  // of all bins, where there is none
  std::uint64_t mass_before_from = 0;

  __device__ bool opens(int bin) const { return (from <= bin && bin <= to) || bin == counted; }
};

// A row's sums in scratch memory.
struct NarrowedSums {
  unsigned long long masses[kBins];
  std::uint32_t counts[kBins];
  std::uint32_t met;   // last_to_meet()
  std::uint32_t open;  // tokens that are
  Cut cut;
  std::int32_t open_tokens[kMostOpen];
};

// By `blocks` thread blocks, of which this one is `block`.
__device__ inline void clear_sums(NarrowedSums& sums, int block, int blocks) {
  const int threads = static_cast<int>(blockDim.x);
  const int thread = block * threads + static_cast<int>(threadIdx.x);
  for (int bin = thread; bin < kBins; bin += blocks * threads) {
    sums.masses[bin] = 0;
    sums.counts[bin] = 0;
  }
  if (thread > 0) return;
  sums.met = 0;
  sums.open = 0;
  sums.cut = Cut{};
}

// Adds tokens [begin, end) to the bins.
static __device__ void add_to_bins(const NarrowedRow& row, int begin, int end, NarrowedSums& sums) {
  __shared__ unsigned long long masses[kBins];
  __shared__ std::uint32_t counts[kBins];
  const bool counted = row.choice.top_k > 0;
  const bool weighed = row.choice.top_p < 1;
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kRowThreads) {
    masses[bin] = 0;
    counts[bin] = 0;
  }
  __syncthreads();
  for (int token = begin + static_cast<int>(threadIdx.x); token < end; token += kRowThreads) {
    const float logit = row.logits[token];
    if (!(logit > -INFINITY)) continue;
    const int bin = row.bin(logit);
    if (counted) atomicAdd(&counts[bin], 1U);
    const std::uint64_t mass = weighed ? row.mass(logit) : 0;
    if (mass > 0) atomicAdd(&masses[bin], static_cast<unsigned long long>(mass));
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kRowThreads) {
    if (counts[bin] > 0) atomicAdd(&sums.counts[bin], counts[bin]);
    if (masses[bin] > 0) atomicAdd(&sums.masses[bin], masses[bin]);
  }
}

// The sum of what the threads before this one have, and that of all threads.
static __device__ std::uint64_t sum_before(std::uint64_t mine, std::uint64_t& total) {
  __shared__ std::uint64_t sums[kRowThreads / 32];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int warp = static_cast<int>(threadIdx.x / 32);
  std::uint64_t up_to = mine;
  for (int step = 1; step < 32; step *= 2) {
    const std::uint64_t other =
        __shfl_up_sync(0xffffffffU, static_cast<unsigned long long>(up_to), step);
    if (lane >= step) up_to += other;
  }
  __syncthreads();  // what was there before has been read
  if (lane == 31) sums[warp] = up_to;
  __syncthreads();
  std::uint64_t before = up_to - mine;
  total = 0;
  for (int w = 0; w < kRowThreads / 32; ++w) {
    if (w < warp) before += sums[w];
    total += sums[w];
  }
  return before;
}

// Two bins for each thread, with the sum of those before them.
struct BinPair {
  std::uint64_t first;
  std::uint64_t second;
  std::uint64_t before;

  __device__ BinPair(std::uint64_t one, std::uint64_t other, std::uint64_t& total)
      : first(one), second(other), before(sum_before(one + other, total)) {}

  // Whether one of them is the bin with which the sum reaches `target`.
  __device__ bool reaches(std::uint64_t target) const {
    return before < target && target <= before + first + second;
  }
  // Which, and the sum before it.
  __device__ int bin_reaching(std::uint64_t target) const {
    return 2 * static_cast<int>(threadIdx.x) + (target > before + first ? 1 : 0);
  }
  __device__ std::uint64_t before_bin(int bin) const { return before + (bin % 2 != 0 ? first : 0); }
  __device__ std::uint64_t of_bin(int bin) const { return bin % 2 != 0 ? second : first; }
  __device__ bool has(int bin) const { return bin / 2 == static_cast<int>(threadIdx.x); }
};

// Of sums that are complete; by a whole thread block.
static __device__ void find_cut(const Choice& choice, NarrowedSums& sums) {
  __shared__ std::uint64_t least_mass_of_k;
  __shared__ std::uint64_t most_mass_of_k;
  const int mine = 2 * static_cast<int>(threadIdx.x);
  Cut& cut = sums.cut;
  if (choice.top_k > 0) {
    const auto k = static_cast<std::uint64_t>(choice.top_k);
    std::uint64_t tokens = 0;
    const BinPair counts(__ldcg(&sums.counts[mine]), __ldcg(&sums.counts[mine + 1]), tokens);
    if (counts.reaches(k) && counts.bin_reaching(k) < kLastBin) {
      cut.counted = counts.bin_reaching(k);
      cut.count_left = k - counts.before_bin(cut.counted);
    }
    __syncthreads();
  }
  const int counted = cut.counted;
  if (choice.top_p < 1) {
    std::uint64_t all = 0;
    const BinPair masses(__ldcg(&sums.masses[mine]), __ldcg(&sums.masses[mine + 1]), all);
    if (counted == kNoBin ? threadIdx.x == 0 : masses.has(counted)) {
      least_mass_of_k = counted == kNoBin ? all : masses.before_bin(counted);
      most_mass_of_k = least_mass_of_k + (counted == kNoBin ? 0 : masses.of_bin(counted));
      cut.mass_before_counted = least_mass_of_k;
    }
    __syncthreads();
    const std::uint64_t least = nucleus_mass(choice.top_p, least_mass_of_k);
    const std::uint64_t most = nucleus_mass(choice.top_p, most_mass_of_k);
    if (masses.reaches(least)) {
      cut.from = masses.bin_reaching(least);
      cut.mass_before_from = masses.before_bin(cut.from);
    }
    if (masses.reaches(most)) cut.to = masses.bin_reaching(most);
  } else if (counted != kNoBin && threadIdx.x == 0) {
    cut.from = counted;
    cut.to = counted;
  }
}

// Draws from tokens [begin, end) that stay, and lists the open ones, in any order.
__device__ inline void draw_or_list(const NarrowedRow& row, int begin, int end, const Cut& cut,
                                    NarrowedSums& sums, Leader<double>& drawn) {
  for (int token = begin + static_cast<int>(threadIdx.x); token < end; token += kRowThreads) {
    const float logit = row.logits[token];
    if (!(logit > -INFINITY)) continue;
    const int bin = row.bin(logit);
    if (bin < cut.from) {
      row.draw_from(drawn, logit, token);
    } else if (cut.opens(bin)) {
      const std::uint32_t at = atomicAdd(&sums.open, 1U);
      if (at < kMostOpen) sums.open_tokens[at] = token;
    }
  }
}

// The better tokens first: higher logits, of equal ones (the two zeros are) lower tokens.
__device__ inline std::uint64_t order_of(float logit, int token) {
  const std::uint32_t bits = as_bits(logit + 0.0F);
  const std::uint32_t falling = bits ^ (bits >> 31 != 0 ? 0U : 0x7fffffffU);
  return static_cast<std::uint64_t>(falling) << 32 | static_cast<std::uint32_t>(token);
}

// The open tokens of a row, when all are listed.
struct OpenTokens {
  const NarrowedRow& row;
  const Cut& cut;
  const std::int32_t* list;
  int count;  // more than kMostOpen: all tokens have to be looked at

  // use(order, logit, bin) for this thread's.
  template <class Use>
  __device__ void each(const Use& use) const {
    const bool listed = count <= kMostOpen;
    const int all = listed ? count : row.vocab;
    for (int i = static_cast<int>(threadIdx.x); i < all; i += kRowThreads) {
      const int token = listed ? __ldcg(list + i) : i;
      const float logit = row.logits[token];
      if (!(logit > -INFINITY)) continue;
      const int bin = row.bin(logit);
      if (cut.opens(bin)) use(order_of(logit, token), logit, bin);
    }
  }
};

// The place in the order of the open token with which weight(order, logit, bin) of all, added up in
// that order, reaches `left`, which is at most their sum. Its bits are found from the highest on,
// some at a time, by the weights of all tokens that have those found so far. `histogram`: shared
// memory for kBins.
template <class Weight>
static __device__ std::uint64_t place_reaching(const OpenTokens& open, const Weight& weight,
                                               std::uint64_t left, unsigned long long* histogram) {
  __shared__ std::uint64_t found;
  __shared__ std::uint64_t found_left;
  const int mine = 2 * static_cast<int>(threadIdx.x);
  std::uint64_t place = 0;
  std::uint64_t known = 0;  // bits of it
  // The logit's 32 bits, and a token's, of which the upper ones are zero.
  constexpr int kShifts[] = {53, 42, 31, 11, 0};
  for (const int shift : kShifts) {
    histogram[mine] = 0;
    histogram[mine + 1] = 0;
    __syncthreads();
    open.each([&](std::uint64_t order, float logit, int bin) {
      if ((order & known) != place) return;
      const std::uint64_t its = weight(order, logit, bin);
      if (its == 0) return;
      atomicAdd(&histogram[order >> shift & (kBins - 1)], static_cast<unsigned long long>(its));
    });
    __syncthreads();
    std::uint64_t total = 0;
    const BinPair pair(histogram[mine], histogram[mine + 1], total);
    if (pair.reaches(left)) {
      const int bin = pair.bin_reaching(left);
      found = place | static_cast<std::uint64_t>(bin) << shift;
      found_left = left - pair.before_bin(bin);
    }
    __syncthreads();
    place = found;
    left = found_left;
    known = ~std::uint64_t{0} << shift;
  }
  return place;
}

// The place of the last token that stays.
static __device__ std::uint64_t last_place(const OpenTokens& open) {
  __shared__ unsigned long long histogram[kBins];
  const NarrowedRow& row = open.row;
  const Cut& cut = open.cut;
  std::uint64_t last = ~std::uint64_t{0};
  if (cut.counted != kNoBin) {
    const auto one = [&](std::uint64_t, float, int bin) {
      return static_cast<std::uint64_t>(bin == cut.counted ? 1 : 0);
    };
    last = place_reaching(open, one, cut.count_left, histogram);
  }
  if (!(row.choice.top_p < 1)) return last;
  std::uint64_t mine = 0;
  if (cut.counted != kNoBin) {
    open.each([&](std::uint64_t order, float logit, int bin) {
      if (bin == cut.counted && order <= last) mine += row.mass(logit);
    });
  }
  std::uint64_t of_counted = 0;
  sum_before(mine, of_counted);
  const std::uint64_t wanted = nucleus_mass(row.choice.top_p, cut.mass_before_counted + of_counted);
  const std::uint64_t last_of_k = last;
  const auto mass = [&](std::uint64_t order, float logit, int bin) {
    const bool there = cut.from <= bin && bin <= cut.to && order <= last_of_k;
    return there ? row.mass(logit) : 0;
  };
  return place_reaching(open, mass, wanted - cut.mass_before_from, histogram);
}

// By the thread block that came last.
__device__ inline void draw_open(const OpenTokens& open, Leader<double>& drawn) {
  if (open.count == 0) return;
  const std::uint64_t last = last_place(open);
  open.each([&](std::uint64_t order, float logit, int) {
    if (order > last) return;
    open.row.draw_from(drawn, logit, static_cast<int>(order & 0xffffffffU));
  });
}

}  // namespace dsm::kernels::cuda
