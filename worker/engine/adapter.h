// A set of low-rank additions (LoRA) to the model's weights, as the engine sees it: a number and a
// name. Whoever holds a reference keeps its weights in memory, so a sequence ends with the weights
// with which it began, whatever its name stands for by then.
#pragma once

#include <string>

#include "worker/engine/ids.h"

namespace dsm::engine {

struct Adapter {
  AdapterId id = kNoAdapter;  // never used twice: weights that are loaded again have another one
  std::string name;           // as clients call it
};

}  // namespace dsm::engine
