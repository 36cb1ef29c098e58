// Devices that are not well: from what a leader tells of its ranks to what the status says. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "operator/api/status.h"
#include "operator/plan/observed.h"

namespace dsm::plan {

struct Group;  // groups.h

// The `ranks` of a line of the status stream, whatever it is. Of what a worker of another version
// says, that is taken which has the form that a status may have: a level that is known, names of
// one word, and no more of each than a group can have.
int rank_count(const nlohmann::json& ranks);
std::vector<SickDevice> sick_devices(const nlohmann::json& ranks);

// Of a group, with their nodes. While its leader is silent, those that were told `before` stay, as
// long as its pods are on the nodes on which they were: `nodes`.
std::vector<api::DeviceStatus> devices_of(const Group& group, const std::vector<std::string>& nodes,
                                          const api::GroupStatus* before);

}  // namespace dsm::plan
