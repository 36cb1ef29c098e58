// What the operator's caches and status streams take of memory and processor time, in one process
// and without a cluster:
//   PYTHONPATH=bench python3 -m scale.leaders 8001 &      # answers the streams
//   build/release/operator-bench [models] [port]          # without a port: no streams
// Lists and watch events go through the watch machine as the text that an API server sends. A model
// has 5 groups of 2 pods. See docs/benchmarks.md.
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <functional>
#include <mutex>
#include <thread>

#include "bench/operator/objects.h"
#include "kube/client.h"
#include "kube/watch.h"
#include "operator/plan/plan.h"
#include "operator/runtime/status_streams.h"
#include "operator/runtime/store.h"

namespace dsm::bench {
namespace {

constexpr double kMiB = 1 << 20;
constexpr Seconds kStreamsWithin{120};
constexpr Seconds kStreamsWatched{10};

double heap_bytes() {
  return static_cast<double>(mallinfo2().uordblks);
}
double status_kib(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::strtod(line.c_str() + field.size() + 1, nullptr);
  }
  return 0;
}
double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Prints what `work` cost for each of `count` things.
void measure(const char* what, std::size_t count, const std::function<void()>& work) {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // the highest so far is what is resident now
  const double heap = heap_bytes();
  const double resident = status_kib("VmRSS");
  const double cpu = cpu_seconds();
  work();
  const double spent = cpu_seconds() - cpu;
  const double peak = status_kib("VmHWM") - resident;
  malloc_trim(0);
  const double kept = status_kib("VmRSS") - resident;
  const auto each = static_cast<double>(count);
  std::printf("| %s | %zu | %.0f | %.1f | %.1f | %.0f |\n", what, count,
              (heap_bytes() - heap) / each, kept / 1024, peak / 1024, 1e6 * spent / each);
  std::fflush(stdout);
}

// Objects as text: as trees they would take ten times the memory.
using Texts = std::vector<std::string>;

// The answers to a list of these objects, page by page.
std::vector<kube::HttpResponse> pages_of(const Texts& objects) {
  std::vector<kube::HttpResponse> pages;
  const auto size = static_cast<std::size_t>(kube::kWatchPageSize);
  for (std::size_t from = 0; from < objects.size(); from += size) {
    const std::size_t to = std::min(objects.size(), from + size);
    Json metadata = {{"resourceVersion", "1000000"}};
    if (to < objects.size()) metadata["continue"] = std::to_string(to);
    std::string page = R"({"kind":"List","metadata":)" + metadata.dump() + R"(,"items":[)";
    for (std::size_t i = from; i < to; ++i) page += (i > from ? "," : "") + objects[i];
    pages.push_back({200, {}, page + "]}"});
  }
  return pages;
}

template <typename Cache>
class Kind {
 public:
  Kind(Cache& cache, const Texts& objects) : cache_(cache), pages_(pages_of(objects)) {}

  void list() {
    feed(kube::watch_input::Begin{});
    for (const kube::HttpResponse& page : pages_) feed(kube::watch_input::Listed{page});
  }
  void event(const std::string& line) { feed(kube::watch_input::Bytes{line}); }

 private:
  void feed(const kube::WatchInput& input) {
    kube::WatchStep step = kube::step(std::move(state_), input, TimePoint(), 0);
    state_ = std::move(step.state);
    cache_.take(std::move(step.events));
  }

  Cache& cache_;
  const std::vector<kube::HttpResponse> pages_;
  kube::WatchState state_;
};

template <typename Cache>
void fill(const char* what, Cache& cache, const Texts& objects) {
  Kind<Cache> kind(cache, objects);
  measure(what, objects.size(), [&] { kind.list(); });
}

// A list of the pods, and then an event for each that changes nothing but its version.
void fill_pods(runtime::Cache<runtime::PodTraits>& cache, const Texts& pods) {
  Kind<runtime::Cache<runtime::PodTraits>> kind(cache, pods);
  measure("pods", pods.size(), [&] { kind.list(); });
  Texts lines;
  for (std::size_t i = 0; i < pods.size(); ++i) {
    Json pod = Json::parse(pods[i]);
    pod["metadata"]["resourceVersion"] = std::to_string(2'000'000 + i);
    lines.push_back(Json{{"type", "MODIFIED"}, {"object", std::move(pod)}}.dump() + "\n");
  }
  measure("watch events of pods", pods.size(), [&] {
    for (const std::string& line : lines) kind.event(line);
  });
}

// As the controller does, without what it writes.
plan::Plan look(const runtime::Store& store, const std::string& key) {
  plan::Observed observed;
  observed.model = std::move(*store.models.find(key));
  for (auto& pod : store.pods.of_model(key)) observed.pods.push_back(std::move(*pod));
  const auto add = [&](auto children) {
    for (auto& child : children) observed.children.push_back(std::move(*child));
  };
  add(store.services.of_model(key));
  add(store.revisions.of_model(key));
  add(store.budgets.of_model(key));
  observed.config.worker_image = "deepseek-worker:1";
  observed.config.watches_nodes = true;
  observed.now = observed.pods.front().created + Seconds(60);
  return plan::plan(observed);
}

void measure_streams(const runtime::Store& store, std::uint16_t port) {
  SystemClock clock;
  std::map<std::string, std::vector<runtime::Leader>> leaders;
  std::size_t count = 0;
  for (const std::string& key : store.models.keys()) {
    for (const auto& pod : store.pods.of_model(key)) {
      if (pod->index == 0) leaders[key].push_back({pod->uid, pod->ip});
    }
    count += leaders[key].size();
  }
  std::mutex mutex;
  std::condition_variable spoken;
  runtime::StatusStreams streams(
      clock, port,
      [&](const std::string&, runtime::StreamNews) {
        const std::lock_guard lock(mutex);
        spoken.notify_one();
      },
      Logger());
  measure("status streams, opened", count, [&] {
    for (const auto& [model, each] : leaders) streams.set(model, each, std::string(64, 'a'));
    std::unique_lock lock(mutex);
    spoken.wait_for(lock, kStreamsWithin, [&] { return streams.connected() >= count; });
  });
  if (streams.connected() < count) std::printf("only %zu streams speak\n", streams.connected());
  measure("the same, each second", count * static_cast<std::size_t>(kStreamsWatched.count()),
          [] { std::this_thread::sleep_for(kStreamsWatched); });  // the length of the measurement
}

void run(int models, std::uint16_t port) {
  Texts all_models, pods, services, revisions, budgets;
  const auto add = [](Texts& to, const std::vector<Json>& objects) {
    for (const Json& object : objects) to.push_back(object.dump());
  };
  for (int i = 0; i < models; ++i) {
    const Objects objects = serving_model(i);
    add(all_models, {objects.model});
    add(pods, objects.pods);
    add(services, objects.services);
    add(revisions, objects.revisions);
    add(budgets, objects.budgets);
  }
  std::printf("| | count | heap, bytes each | resident, MiB | at most, MiB | CPU, us each |\n");
  std::printf("|---|---|---|---|---|---|\n");
  runtime::Store store;
  fill_pods(store.pods, pods);
  fill("DeepSeekModels", store.models, all_models);
  fill("Services", store.services, services);
  fill("ControllerRevisions", store.revisions, revisions);
  fill("PodDisruptionBudgets", store.budgets, budgets);
  if (port != 0) measure_streams(store, port);
  const std::vector<std::string> keys = store.models.keys();
  measure("looks", keys.size(), [&] {
    for (const std::string& key : keys) look(store, key);
  });
}

}  // namespace
}  // namespace dsm::bench

int main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, 2);  // as in the operator
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  dsm::bench::run(argc > 1 ? std::atoi(argv[1]) : 1000,
                  static_cast<std::uint16_t>(argc > 2 ? std::atoi(argv[2]) : 0));
  return 0;
}
