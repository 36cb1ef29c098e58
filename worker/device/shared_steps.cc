#include "worker/device/shared_steps.h"

#include <algorithm>

namespace dsm::device {

SharedSteps::SharedSteps(comm::Communicator& ranks)
    : ranks_(ranks), own_(std::make_shared<Asked>()) {
  for (const auto& rank : ranks.share(own_)) all_.push_back(std::static_pointer_cast<Asked>(rank));
}

bool SharedSteps::begin() {
  in_step_ = true;
  plain_ = false;
  const std::uint64_t before = number_++;
  return before > 0 && std::ranges::any_of(all_, [&](const auto& rank) {
           return (*rank)[before % 2].load() == before;
         });
}

void SharedSteps::ask_to_drop() {
  (*own_)[number_ % 2].store(number_);
}

}  // namespace dsm::device
