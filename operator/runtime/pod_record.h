// A pod as the store keeps it: a PodView as a row of bytes, of which it needs a quarter, since most
// of its texts and times are absent. For memory alone: it is never sent or written anywhere.
#pragma once

#include <string>
#include <string_view>

#include "operator/plan/observed.h"

namespace dsm::runtime {

std::string pod_record(const plan::PodView& pod);
// Of pod_record's own bytes. Equal pods have equal records.
plan::PodView pod_of_record(std::string_view record);

}  // namespace dsm::runtime
