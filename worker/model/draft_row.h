// What a caller of RankModel::draft says about each row.
#pragma once

#include <cstdint>

#include "worker/engine/ids.h"

namespace dsm::model {

// What became of a row of the batch that forward() has just computed.
struct DraftRow {
  std::int32_t kept = 0;      // leading tokens that stand; those after them are forgotten
  engine::TokenId next = -1;  // the token after them; -1: not known
  std::int32_t wanted = 0;    // drafts to make of what comes after `next`; 0 when it is not known
};

}  // namespace dsm::model
