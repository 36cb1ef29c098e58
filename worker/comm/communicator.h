// Collectives between the ranks of one tensor-parallel group. Every rank calls the same operations
// in the same order with the same sizes; buffers are host memory. One thread per rank uses a
// Communicator, but abort() may be called from any thread and makes the others' pending and later
// calls throw.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <vector>

namespace dsm::comm {

// A rank was lost, a step's deadline passed or abort() was called: the communicator is of no
// further use; a new one is made at the next rendezvous epoch.
class CommError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // recv[r * send.size() .. ) = rank r's send, on every rank. recv.size() == size() * send.size().
  virtual void all_gather(std::span<const float> send, std::span<float> recv) = 0;
  // As all_gather, but recv is filled on `root` only (may be empty elsewhere).
  virtual void gather(std::span<const float> send, std::span<float> recv, int root) = 0;
  virtual void broadcast(std::span<std::byte> data, int root) = 0;
  virtual void barrier() = 0;
  virtual void abort() noexcept = 0;

  // Tells, also after this object's end, whether abort() was called: for those who wait for
  // something else of the same ranks. Of a group of one it need not tell anything.
  virtual std::stop_token aborted() const { return {}; }
  // Where all ranks are threads of this process: what each of them gave, by rank. Else empty.
  virtual std::vector<std::shared_ptr<void>> share(const std::shared_ptr<void>& /*mine*/) {
    return {};
  }
};

}  // namespace dsm::comm
