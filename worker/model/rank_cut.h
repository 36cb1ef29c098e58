// Which part of what is divided over ranks one of them takes.
#pragma once

namespace dsm::model {

// Part `rank` of `ranks` equal ones.
struct RankCut {
  int rank = 0;
  int ranks = 1;
};

// That of attention: whole, where ranks attend to sequences of their own (data-parallel attention),
// else its heads are divided as everything.
constexpr RankCut attention_cut(RankCut rank, bool data_parallel) {
  return data_parallel ? RankCut{} : rank;
}

}  // namespace dsm::model
