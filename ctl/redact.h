// What of an object may leave the cluster in a support bundle. Pure.
#pragma once

#include <nlohmann/json.hpp>

namespace dsm::ctl {

// The object without what could be a secret: values in `data`, `stringData` of a Secret and `value`
// of environment variables are replaced by a note, names and keys stay; annotations that repeat the
// whole object and managedFields are left out.
nlohmann::json redacted(nlohmann::json object);

}  // namespace dsm::ctl
