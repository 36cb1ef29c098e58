// What a tenant may count on, watched second by second and at last: its budget is kept, nothing
// that fits is held back, and its walls stand as its spec says. For tests; single-threaded.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "operator/faults/world.h"

namespace dsm::faults {

class TenantPromises {
 public:
  // Must outlive it.
  explicit TenantPromises(World& world) : world_(world) {}

  // No group is begun beyond the budget. Above it is only what ran before somebody lowered it, or
  // gave the tenant one more namespace, until that has gone once.
  void check_second();
  // All is quiet.
  void check_end();

  // A model of the tenant of this one's namespace waits, or would wait with one more group.
  bool is_cramped(const Json& model) const;

 private:
  using Amounts = std::map<std::string, double>;  // thousandths, by resource; and models
  struct Model {
    std::string key;
    std::string created;
    int wanted = 0;
    int groups = 0;  // that have pods
    int ready = 0;
    Amounts group;  // what one of the wanted revision takes
  };
  struct Account {
    const Json* tenant = nullptr;
    std::vector<Model> models;  // oldest first
    Amounts limits;
    Amounts used;
  };

  const Objects& objects() const { return world_.server().objects(); }
  // The tenant that a namespace belongs to; nullptr: to none.
  const Json* owner_of(const std::string& ns) const;
  Account account_of(const Json& tenant) const;
  void add_models(const std::string& ns, Account& account) const;
  static std::string groups_of(const Account& account);
  // What there is too little of for one more group; "": nothing.
  static std::string missing(const Account& account, const Model& model);
  // The operators know what the users have said last.
  bool all_is_seen() const;

  void check_account(const Json& tenant);
  void check_used(const Account& account);
  void check_walls(const std::string& ns);
  std::vector<std::string> walls_of(const Json& tenant) const;

  World& world_;
  std::map<std::string, Amounts> ceilings_;  // by the tenant's uid
  std::map<std::string, Json> said_;         // its generation, by the same
  int late_writes_ = 0;
};

}  // namespace dsm::faults
