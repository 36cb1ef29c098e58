// For tests: ranks that are threads of this process.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "worker/comm/thread_comm.h"

namespace dsm::device {

// Runs `body` as every rank, each on its own thread.
inline void run(int size, const std::function<void(comm::Communicator&)>& body) {
  const auto comms = comm::make_thread_communicators(size);
  std::vector<std::thread> threads;
  threads.reserve(comms.size());
  for (const auto& comm : comms) threads.emplace_back([&] { body(*comm); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace dsm::device
