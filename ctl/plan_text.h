// A rehearsal as text and as JSON. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ctl/changes.h"
#include "ctl/rehearse.h"
#include "ctl/text.h"

namespace dsm::ctl {

struct PlannedModel {
  std::string name;
  std::string ns;
  bool is_new = false;
  std::vector<Change> changes;     // of the spec
  std::vector<std::string> notes;  // what was not known
  Rehearsal rehearsal;
};

std::string plan_text(const PlannedModel& planned, const Style& style);
nlohmann::json to_json(const PlannedModel& planned);

}  // namespace dsm::ctl
