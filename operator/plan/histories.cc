// histories COUNT [SEED]: random histories of a model with seeds SEED, SEED + 1, ... (default 1),
// each with and without sleep, and with and without harm to pods and nodes. Prints every breach
// with its seed; exits 1 then.
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "operator/plan/random_history.h"

int main(int argc, char** argv) {
  using dsm::plan::Harm;
  using dsm::plan::Sleep;
  if (argc < 2) {
    std::fputs("usage: histories COUNT [SEED]\n", stderr);
    return 2;
  }
  const auto count = static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10));
  const auto first = argc > 2 ? static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)) : 1U;
  unsigned bad = 0;
  for (unsigned seed = first; seed - first < count; ++seed) {
    for (const auto& [harm, sleep] :
         {std::pair(Harm::kNone, Sleep::kNever), std::pair(Harm::kPodsAndNodes, Sleep::kNever),
          std::pair(Harm::kNone, Sleep::kSometimes),
          std::pair(Harm::kPodsAndNodes, Sleep::kSometimes)}) {
      const auto breaches = dsm::plan::breaches_of_history(seed, harm, sleep);
      for (const auto& breach : breaches) {
        std::printf("seed %u %s sleep, %s harm: %s\n", seed,
                    sleep == Sleep::kNever ? "without" : "with",
                    harm == Harm::kNone ? "without" : "with", breach.c_str());
      }
      std::fflush(stdout);
      bad += breaches.empty() ? 0 : 1;
    }
  }
  std::printf("%u histories, %u with a breach\n", 4 * count, bad);
  return bad == 0 ? 0 : 1;
}
