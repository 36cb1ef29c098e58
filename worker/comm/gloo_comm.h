// Communicators between processes, over Gloo's TCP transport.
//
// Each operation is one message from every rank to every other (empty where there is nothing to
// say), pushed into memory that the receiver registered beforehand. That is one one-way trip per
// operation, where Gloo's own collectives take several; small all_gathers are most of what tensor
// parallelism on CPUs sends. The registered memory is doubled: a rank writes to a peer's half for
// operation k + 2 only after the peer's message of operation k + 1, which the peer sends after it
// has read operation k.
//
// Every exception of Gloo comes out as CommError; a lost peer, a time-out or abort() break the
// communicator for good. A rank that destroys its communicator breaks an operation that others have
// not left yet.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rendezvous.h"

namespace dsm::comm {

struct GlooOptions {
  int rank = 0;
  int size = 2;
  // This process's address, as the other ranks reach it; connections are accepted on it alone.
  std::string host;
  // A peer that says nothing for so long in the middle of an operation is lost.
  Millis timeout{60000};
};

class GlooCommunicator final : public Communicator {
 public:
  // Opens a listening port per peer. Throws CommError when `host` is not an address of this
  // machine.
  explicit GlooCommunicator(const GlooOptions& options);
  ~GlooCommunicator() override;

  // Tells the others where this rank is and connects to all of them; call once, before any
  // operation. abort() from another thread ends the waiting (as does Rendezvous::abort()).
  void connect(Rendezvous& rendezvous);

  int rank() const override;
  int size() const override;
  void all_gather(std::span<const float> send, std::span<float> recv) override;
  void gather(std::span<const float> send, std::span<float> recv, int root) override;
  void broadcast(std::span<std::byte> data, int root) override;
  void barrier() override;
  void abort() noexcept override;
  std::stop_token aborted() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::comm
