#include "worker/comm/nccl_comm.h"

#include <span>
#include <thread>
#include <utility>

namespace dsm::comm {

NcclComm::NcclComm(const NcclApi& api, Communicator& ranks, const Clock& clock, Millis timeout)
    : api_(api), clock_(clock), timeout_(timeout), aborted_(ranks.aborted()) {
  NcclApi::Id id{};
  const bool root = ranks.rank() == 0;
  // An id that could not be made stays zero: it is sent all the same, or the others would wait.
  const int made = root ? api_.get_unique_id(&id) : NcclApi::kSuccess;
  if (ranks.size() > 1) ranks.broadcast(std::as_writable_bytes(std::span(id.bytes)), 0);
  check(made, "make an id for the ranks");
  NcclApi::Config config;
  check(api_.init_rank(&comm_, ranks.size(), id, ranks.rank(), &config), "connect the ranks");
  wait_for_nccl("connect the ranks");
}

NcclComm::~NcclComm() {
  abort();
}

void NcclComm::all_gather(const float* mine, float* parts, std::size_t count, void* stream) {
  if (comm_ == nullptr) throw CommError("NCCL: the ranks are lost");
  check(api_.all_gather(mine, parts, count, NcclApi::kFloat32, comm_, stream), "gather");
  wait_for_nccl("gather");
}

void NcclComm::all_reduce(const float* mine, float* sum, std::size_t count, void* stream) {
  if (comm_ == nullptr) throw CommError("NCCL: the ranks are lost");
  check(api_.all_reduce(mine, sum, count, NcclApi::kFloat32, NcclApi::kSum, comm_, stream), "add");
  wait_for_nccl("add");
}

void NcclComm::wait(const std::function<bool()>& done, const char* what) {
  const TimePoint start = clock_.now();
  while (!done()) {
    const auto waited = clock_.now() - start;
    if (comm_ != nullptr) {
      if (aborted_.stop_requested()) give_up("the epoch was aborted");
      int state = NcclApi::kSuccess;
      check(api_.async_error(comm_, &state), what);
      check(state, what);
      if (waited >= timeout_) {
        give_up(std::string("cannot ") + what + " within " + std::to_string(timeout_.count()) +
                " ms");
      }
    }
    if (const auto pause = pause_after(waited); pause.count() > 0) {
      std::this_thread::sleep_for(pause);
    } else {
      std::this_thread::yield();
    }
  }
}

void NcclComm::check(int result, const char* what) {
  if (result == NcclApi::kSuccess || result == NcclApi::kInProgress) return;
  give_up(std::string("cannot ") + what + ": " + api_.error_string(result));
}

void NcclComm::wait_for_nccl(const char* what) {
  wait(
      [&] {
        int state = NcclApi::kSuccess;
        check(api_.async_error(comm_, &state), what);
        check(state, what);
        return state == NcclApi::kSuccess;
      },
      what);
}

void NcclComm::give_up(const std::string& why) {
  abort();
  throw CommError("NCCL: " + why);
}

void NcclComm::abort() noexcept {
  if (auto* comm = std::exchange(comm_, nullptr); comm != nullptr) api_.abort(comm);
}

}  // namespace dsm::comm
