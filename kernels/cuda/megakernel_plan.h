// The list of operators that a megakernel goes through. Operators are added in the order in which
// they would be called, and come in phases, between which all blocks wait for each other: each in
// the one after the last that writes what it reads or writes, or reads what it writes. So what does
// not depend on each other, as the router's product and the shared expert, is side by side. Pure,
// tested on the CPU.
#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/megakernel_ops.h"

namespace dsm::kernels::cuda {

class MegakernelPlan {
 public:
  bool empty() const { return ops_.empty() && router_.tokens == 0; }
  void clear();

  void add(PlannedOp op);
  void norm(const RmsNormParams& params);
  // `tasks`: all of them, or with experts none. Its norm is found here: a product of few rows makes
  // them for itself, and where it and others say that they alone read them, nobody else does.
  void products(MegakernelProducts params, std::span<const ProductTask> tasks);
  void route(const RouterParams& params) { put_router({}, {}, params); }
  // Of the router's choice, if that was the last to be added; false: it was not.
  bool group(const GroupExpertsParams& params, const FewTiles& tiles);

  // The list for so many blocks, which knows then which operators wait, where each begins, and
  // which weights are asked for while. The plan is empty afterwards.
  std::vector<MegakernelOp> take(int blocks);

 private:
  // A norm whose rows products may make for themselves, as long as nobody has written what it reads
  // or what it gives.
  struct Norm {
    RmsNormParams params;
    std::size_t op = 0;
    int taken = 0;  // by so many products
  };
  void put(PlannedOp op);
  const Norm* norm_of(const MegakernelProducts& params);
  // Of ops_: in the order of phases, then who waits and where each begins, then what is asked for.
  void arrange(int blocks);
  void link(int blocks);
  void ask_ahead(int blocks);
  // Adds the router that waits for its groups, and has another wait.
  void put_router(const GroupExpertsParams& groups = {}, const FewTiles& tiles = {},
                  const RouterParams& next = {});
  int phase_of(std::span<const Touched> touched) const;

  std::vector<PlannedOp> ops_;
  std::vector<std::vector<Touched>> phases_;  // what their operators touch
  std::vector<Norm> norms_;
  RouterParams router_;  // of no tokens: none waits
};

}  // namespace dsm::kernels::cuda
