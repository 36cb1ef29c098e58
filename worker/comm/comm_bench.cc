// comm-bench [ranks]: microseconds of an all_gather by size, for threads of one process and for
// Gloo over loopback (ranks as threads of this process, which the transport does not know).
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "worker/comm/gloo_comm.h"
#include "worker/comm/thread_comm.h"

namespace {

using dsm::comm::Communicator;

void measure(const char* kind, Communicator& comm) {
  for (const std::size_t floats : {256, 1024, 8192, 131072}) {
    const std::vector<float> send(floats, 1.0F);
    std::vector<float> recv(floats * static_cast<std::size_t>(comm.size()));
    const int rounds = floats > 10000 ? 200 : 2000;
    for (int i = 0; i < 50; ++i) {
      comm.all_gather(send, recv);
    }
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i) {
      comm.all_gather(send, recv);
    }
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
    if (comm.rank() == 0) {
      std::printf("%-8s %d ranks %7zu bytes %8.1f us\n", kind, comm.size(), floats * sizeof(float),
                  time.count() / rounds);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc > 1 ? std::atoi(argv[1]) : 2;
  auto comms = dsm::comm::make_thread_communicators(size);
  dsm::comm::Rendezvous rendezvous;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      measure("threads", *comms[static_cast<std::size_t>(rank)]);
      dsm::comm::GlooCommunicator gloo({.rank = rank, .size = size, .host = "127.0.0.1"});
      gloo.connect(rendezvous);
      measure("gloo", gloo);
    });
  }
  for (std::thread& t : threads) {
    t.join();
  }
}
