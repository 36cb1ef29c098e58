// Data-parallel attention: a rank attends to sequences of its own alone, whose keys and values only
// its cache holds. While an OwnRows lives, the step's tokens are those of this rank's runs,
// numbered from 0; they stand one after the other in the batch. Where ranks attend to all sequences
// together it changes nothing.
//
// x and all lists are where they were, so what is done to a row of x is done to the batch's, and
// what was staged is found.
#pragma once

#include "worker/model/step.h"

namespace dsm::model {

class OwnRows {
 public:
  explicit OwnRows(Step& step);
  OwnRows(const OwnRows&) = delete;
  OwnRows& operator=(const OwnRows&) = delete;
  ~OwnRows();

 private:
  Step& step_;
  const int all_;  // tokens of the batch
  int begin_ = 0;  // of this rank's
};

}  // namespace dsm::model
