#include "tests/fuzz/fuzzer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/mutate.h"

// Of the sanitizers' runtime, where there is one: called when they end the program.
extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());  // NOLINT

namespace dsm::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestInput = 1 << 20;
constexpr unsigned kSecondsPerInput = 20;

// What is under way, for a handler that may not allocate. One thread fuzzes.
struct Current {
  std::string_view input;
  char line[256] = "";  // what to print
  char file[256] = "";  // where to save it
};
Current current;

void report() {
  if (current.line[0] == '\0') return;
  (void)!::write(STDERR_FILENO, current.line, std::strlen(current.line));
  current.line[0] = '\0';
  const int fd = ::open(current.file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return;
  (void)!::write(fd, current.input.data(), current.input.size());
  ::close(fd);
}

void on_signal(int signal) {
  report();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

void watch_for_the_end() {
  for (const int signal : {SIGABRT, SIGALRM}) ::signal(signal, on_signal);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(report);
  } else {
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) ::signal(signal, on_signal);
  }
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// In the order of names, so that a seed means the same everywhere.
std::vector<std::string> read_corpus(const fs::path& dir) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) paths.push_back(entry.path());
  std::ranges::sort(paths);
  std::vector<std::string> corpus;
  corpus.reserve(paths.size());
  for (const fs::path& path : paths) corpus.push_back(read_file(path));
  return corpus;
}

std::string input_of(std::uint64_t seed, const Target& target,
                     const std::vector<std::string>& corpus) {
  Random random(seed);
  std::string input = corpus[random.below(corpus.size())];
  if (random.chance(10)) {  // the beginning of one and the end of another
    const std::string& other = corpus[random.below(corpus.size())];
    input.resize(random.below(input.size() + 1));
    input += other.substr(random.below(other.size() + 1));
  }
  do input = mutate(std::move(input), random);
  while (random.chance(20));
  if (target.repair != nullptr && random.chance(80)) input = target.repair(std::move(input));
  if (input.size() > kLongestInput) input.resize(kLongestInput);
  return input;
}

struct Options {
  double seconds = 60;
  std::optional<std::uint64_t> seed;
  std::uint64_t count = ~0ULL;
  std::string input;  // one file instead of the corpus
  std::string corpora = "tests/fuzz/corpora";
  std::string save = ".";
};

// `name` becomes a part of the saved file's name, `repeat` says how to have the input again.
bool run_one(const Target& target, const std::string& input, const std::string& name,
             const std::string& repeat, const fs::path& save) {
  current.input = input;
  const std::string file = (save / (std::string(target.name) + "-" + name + ".input")).string();
  std::snprintf(current.file, sizeof current.file, "%s", file.c_str());
  std::snprintf(current.line, sizeof current.line, "\nfuzz: %s broke at %s, input saved as %s\n",
                std::string(target.name).c_str(), repeat.c_str(), file.c_str());
  ::alarm(kSecondsPerInput);
  const bool accepted = target.run(input);
  ::alarm(0);
  current.line[0] = '\0';
  return accepted;
}

int run(const Target& target, const Options& options) {
  if (!options.input.empty()) {
    const std::string input = read_file(options.input);
    const bool accepted = run_one(target, input, "file", options.input, options.save);
    std::printf("%s: %s\n", options.input.c_str(), accepted ? "accepted" : "refused");
    return 0;
  }
  const auto corpus = read_corpus(fs::path(options.corpora) / target.name);
  if (corpus.empty()) {
    std::fprintf(stderr, "fuzz: %s has no corpus in %s\n", std::string(target.name).c_str(),
                 options.corpora.c_str());
    return 1;
  }
  const std::uint64_t first =
      options.seed ? *options.seed : std::random_device{}() % 1'000'000'000ULL;
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::uint64_t accepted = 0;
  // Whole files first: they, too, must not break anything.
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    const std::string name = "corpus-" + std::to_string(i);
    run_one(target, corpus[i], name, name, options.save);
  }
  std::uint64_t done = 0;
  for (; done < options.count && elapsed() < options.seconds; ++done) {
    const std::string seed = std::to_string(first + done);
    const std::string input = input_of(first + done, target, corpus);
    if (run_one(target, input, seed, "--seed " + seed, options.save)) ++accepted;
  }
  std::printf("fuzz: %-12s %9llu inputs from --seed %llu, %llu accepted, %.0f s\n",
              std::string(target.name).c_str(), static_cast<unsigned long long>(done),
              static_cast<unsigned long long>(first), static_cast<unsigned long long>(accepted),
              elapsed());
  return 0;
}

int usage(std::span<const Target> targets) {
  std::fprintf(stderr,
               "usage: TARGET [--seconds 60] [--seed N] [--count N] [--input FILE] [--corpora DIR] "
               "[--save DIR]\ntargets, also printed by --list:");
  for (const Target& target : targets) {
    std::fprintf(stderr, " %s", std::string(target.name).c_str());
  }
  std::fprintf(stderr, "\n");
  return 2;
}

template <class T>
bool read_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

void expect(bool ok, std::string_view what) {
  if (ok) return;
  std::fprintf(stderr, "fuzz: does not hold: %s\n", std::string(what).c_str());
  std::abort();
}

int fuzz_main(int argc, char** argv, std::span<const Target> targets) {
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  if (arguments.size() == 1 && arguments[0] == "--list") {
    for (const Target& target : targets) std::printf("%s\n", std::string(target.name).c_str());
    return 0;
  }
  if (arguments.empty() || arguments.size() % 2 == 0) return usage(targets);
  const auto target = std::ranges::find(targets, arguments[0], &Target::name);
  if (target == targets.end()) return usage(targets);
  Options options;
  for (std::size_t i = 1; i < arguments.size(); i += 2) {
    const std::string_view flag = arguments[i];
    const std::string_view value = arguments[i + 1];
    bool good = true;
    if (flag == "--seconds") {
      good = read_number(value, options.seconds);
    } else if (flag == "--seed") {
      std::uint64_t seed = 0;
      good = read_number(value, seed);
      options.seed = seed;
    } else if (flag == "--count") {
      good = read_number(value, options.count);
    } else if (flag == "--input") {
      options.input = value;
    } else if (flag == "--corpora") {
      options.corpora = value;
    } else if (flag == "--save") {
      options.save = value;
    } else {
      good = false;
    }
    if (!good) return usage(targets);
  }
  watch_for_the_end();
  return run(*target, options);
}

}  // namespace dsm::fuzz
