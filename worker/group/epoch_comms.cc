#include "worker/group/epoch_comms.h"

#include "worker/comm/gloo_comm.h"
#include "worker/comm/thread_comm.h"

namespace dsm::group {
namespace {

class ThreadEpoch final : public EpochComms {
 public:
  explicit ThreadEpoch(int ranks) : comms_(comm::make_thread_communicators(ranks)) {}
  comm::Communicator& open(int local) override { return *comms_[static_cast<std::size_t>(local)]; }
  void abort() noexcept override { comms_.front()->abort(); }

 private:
  std::vector<std::unique_ptr<comm::Communicator>> comms_;
};

class GlooEpoch final : public EpochComms {
 public:
  GlooEpoch(const GlooEpochOptions& options, std::shared_ptr<comm::Rendezvous> rendezvous)
      : options_(options),
        rendezvous_(std::move(rendezvous)),
        comms_(static_cast<std::size_t>(options.local_ranks)) {}

  comm::Communicator& open(int local) override {
    auto made = std::make_unique<comm::GlooCommunicator>(
        comm::GlooOptions{.rank = options_.first_rank + local,
                          .size = options_.size,
                          .host = options_.host,
                          .timeout = options_.timeout});
    comm::GlooCommunicator& comm = *made;
    {
      const std::lock_guard lock(mutex_);
      if (aborted_) {
        throw comm::CommError("the epoch is over");
      }
      comms_[static_cast<std::size_t>(local)] = std::move(made);
    }
    comm.connect(*rendezvous_);
    return comm;
  }

  void abort() noexcept override {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    rendezvous_->abort();
    for (const auto& comm : comms_) {
      if (comm) {
        comm->abort();
      }
    }
  }

 private:
  const GlooEpochOptions options_;
  const std::shared_ptr<comm::Rendezvous> rendezvous_;
  std::mutex mutex_;
  bool aborted_ = false;
  std::vector<std::unique_ptr<comm::GlooCommunicator>> comms_;
};

}  // namespace

std::shared_ptr<EpochComms> make_thread_epoch(int ranks) {
  return std::make_shared<ThreadEpoch>(ranks);
}

std::shared_ptr<EpochComms> make_gloo_epoch(const GlooEpochOptions& options,
                                            std::shared_ptr<comm::Rendezvous> rendezvous) {
  return std::make_shared<GlooEpoch>(options, std::move(rendezvous));
}

}  // namespace dsm::group
