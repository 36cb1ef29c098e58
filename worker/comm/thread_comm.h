// Communicators between ranks that are threads of one process. An operation copies each rank's part
// into shared staging memory, meets at one barrier and copies out. Staging is doubled, so that a
// rank that is already in the next operation does not write where a slower one still reads.
#pragma once

#include <memory>
#include <vector>

#include "worker/comm/communicator.h"

namespace dsm::comm {

// One communicator per rank; each is then used by its own thread. abort() on one breaks all of
// them.
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size);

}  // namespace dsm::comm
