// Time to load a checkpoint, without scheduler or server:
//   build/release/load-bench MODEL_DIR [threads] [ranks]
// All ranks load at the same time, as in a pod. Where the files are not in the page cache, the disk
// is measured.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "worker/model/rank_model.h"

int main(int argc, char** argv) {
  using namespace dsm;
  if (argc < 2) {
    std::fprintf(stderr, "usage: load-bench MODEL_DIR [threads] [ranks]\n");
    return 1;
  }
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  const int ranks = argc > 3 ? std::atoi(argv[3]) : 1;
  const auto config = model::load_model_config(argv[1]);
  if (!config) {
    std::fprintf(stderr, "%s\n", config.error().message.c_str());
    return 1;
  }
  std::vector<std::int64_t> bytes(static_cast<std::size_t>(ranks));
  std::vector<std::string> errors(bytes.size());
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> loaders;
  loaders.reserve(static_cast<std::size_t>(ranks));
  for (int rank = 0; rank < ranks; ++rank) {
    loaders.emplace_back([&, rank] {
      const auto at = static_cast<std::size_t>(rank);
      const auto model = model::RankModel::load(
          argv[1], *config, {.rank = rank, .size = ranks, .threads = threads}, {.num_blocks = 8},
          64, [&, at](std::int64_t loaded, std::int64_t) { bytes[at] = loaded; });
      if (!model) errors[at] = model.error().message;
    });
  }
  for (auto& loader : loaders) loader.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  double all = 0;
  for (std::size_t rank = 0; rank < bytes.size(); ++rank) {
    if (!errors[rank].empty()) {
      std::fprintf(stderr, "rank %zu: %s\n", rank, errors[rank].c_str());
      return 1;
    }
    all += static_cast<double>(bytes[rank]);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds_of = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  std::printf(
      "%d ranks of %d threads: %.2f s, %.0f MB of slices, %.0f MB/s; user %.2f s, system "
      "%.2f s, %.0f MiB resident at most\n",
      ranks, threads, seconds.count(), all / 1e6, all / 1e6 / seconds.count(),
      seconds_of(usage.ru_utime), seconds_of(usage.ru_stime),
      static_cast<double>(usage.ru_maxrss) / 1024);
  return 0;
}
