// The tree of `dsmctl status` as text. Pure.
#pragma once

#include <string>

#include "ctl/text.h"
#include "ctl/tree.h"

namespace dsm::ctl {

//   r1  namespace team-a  ready 1/2  queue 3  revision 5f2c19aa  age 4m
//   |-- Ready         False  LoadingWeights: group r1-5f2c19aa-1: weights: 2.0 GB of 8.0 GB loaded
//   |-- ...
//   |-- r1-5f2c19aa-0  Ready
//   |   |-- r1-5f2c19aa-0-0  leader  Ready  node-1
//   |   `-- r1-5f2c19aa-0-1  worker  Ready  node-2
//   `-- r1-5f2c19aa-1  Loading  [#####...............]  25%  LoadingWeights: weights: 2.0 GB of ...
//       `-- ...
std::string tree_text(const ModelTree& tree, WallTime now, const Style& style);

}  // namespace dsm::ctl
