#include "operator/api/tenant.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "operator/api/field_visitors.h"

namespace dsm::api {
namespace {

std::unexpected<Error> bad(std::string_view text, std::string_view remedy) {
  return fail(ErrorKind::kInvalid, "is \"" + std::string(text) + "\"; " + std::string(remedy));
}

dsm::Status check_tenant_namespace(std::string_view text) {
  if (auto ok = check_dns_name(text); !ok) return ok;
  if (text.find('.') != std::string_view::npos) return bad(text, "use the name of a namespace");
  if (text.starts_with("kube-")) {
    return bad(text, "namespaces that begin with kube- are the cluster's own; name another");
  }
  return {};
}

dsm::Status check_namespace(std::string_view text) {
  if (check_dns_name(text) && text.find('.') == std::string_view::npos) return {};
  return bad(text, "use the name of a namespace");
}

dsm::Status check_subject_kind(std::string_view text) {
  if (text == "User" || text == "Group" || text == "ServiceAccount") return {};
  return bad(text, "use User, Group or ServiceAccount");
}

dsm::Status check_model_pattern(std::string_view text) {
  const auto star = text.find('*');
  const bool scheme = text.starts_with("pvc://") || text.starts_with("image:///");
  if (scheme && (star == std::string_view::npos || star + 1 == text.size())) return {};
  return bad(text, "use a uri such as pvc://weights/r1, or the beginning of one and '*'");
}

// Four numbers up to 255, or what an IPv6 address is written with, then the prefix's length. What
// passes and is still no network is refused by the API server, and the tenant says so.
dsm::Status check_cidr(std::string_view text) {
  const auto slash = text.find('/');
  const std::string_view address = text.substr(0, slash);
  const bool six = address.find(':') != std::string_view::npos;
  const std::string_view letters = six ? "0123456789abcdefABCDEF:" : "0123456789.";
  int bits = -1;
  if (slash != std::string_view::npos) {
    const std::string_view length = text.substr(slash + 1);
    const auto read = std::from_chars(length.data(), length.data() + length.size(), bits);
    if (read.ec != std::errc() || read.ptr != length.data() + length.size()) bits = -1;
  }
  const bool shaped = !address.empty() && std::ranges::all_of(address, [&](char c) {
    return letters.find(c) != std::string_view::npos;
  }) && (six || std::ranges::count(address, '.') == 3);
  if (shaped && bits >= 0 && bits <= (six ? 128 : 32)) return {};
  return bad(text, "use a network such as 10.0.0.0/8");
}

template <typename Visitor>
void visit_tenant(Visitor& v, TenantSpec& s) {
  v.texts("namespaces", s.namespaces, 64,
          {.max_length = 63, .required = true, .check = check_tenant_namespace});
  v.list("owners", s.owners, 64, [&](Subject& o) {
    v.text("kind", o.kind, {.max_length = 14, .check = check_subject_kind});
    v.text("name", o.name, {.max_length = 253, .required = true});
    v.text("namespace", o.ns, {.max_length = 63, .check = check_namespace});
  });
  v.object("budget", [&] {
    v.number("models", s.budget.models, 0, 100000);
    v.map("resources", s.budget.resources,
          {.max_entries = 16,
           .max_length = 32,
           .check_key = check_label_key,
           .check_value = check_quantity,
           .numbers_too = true});
  });
  v.object("allowed", [&] {
    v.texts("models", s.allowed.models, 64, {.max_length = 512, .check = check_model_pattern});
    v.texts("accelerators", s.allowed.accelerators, 16,
            {.max_length = 63, .check = check_label_key});
  });
  v.object("priority", [&] {
    v.text("className", s.priority.class_name, {.max_length = 253, .check = check_dns_name});
    v.number("value", s.priority.value, -1000000000, 1000000000);
  });
  v.object("clients", [&] {
    v.texts("namespaces", s.clients.namespaces, 64, {.max_length = 63, .check = check_namespace});
    v.texts("cidrs", s.clients.cidrs, 64, {.max_length = 43, .check = check_cidr});
  });
  v.object("keys", [&] { v.truth("required", s.keys_required); });
}

// Rules between fields; the CRD says them, too.
dsm::Status check_together(const TenantSpec& spec) {
  if (std::set<std::string>(spec.namespaces.begin(), spec.namespaces.end()).size() !=
      spec.namespaces.size()) {
    return fail(ErrorKind::kInvalid, "spec.namespaces: names a namespace twice; once is enough");
  }
  for (const Subject& owner : spec.owners) {
    if ((owner.kind == "ServiceAccount") != !owner.ns.empty()) {
      return fail(ErrorKind::kInvalid,
                  "spec.owners: " + owner.kind + " " + owner.name +
                      (owner.ns.empty() ? " needs the namespace that it is in"
                                        : " is in no namespace; remove its namespace"));
    }
  }
  if (!spec.priority.class_name.empty() && spec.priority.value) {
    return fail(ErrorKind::kInvalid,
                "spec.priority: has className and value; use className for a PriorityClass that is "
                "there, or value for one that is made");
  }
  return {};
}

}  // namespace

Result<TenantSpec> parse_tenant(const json& spec) {
  TenantSpec parsed;
  Parser parser(spec);
  if (spec.is_object()) visit_tenant(parser, parsed);
  if (auto ok = parser.finish(); !ok) return std::unexpected(ok.error());
  if (auto ok = check_together(parsed); !ok) return std::unexpected(ok.error());
  return parsed;
}

std::vector<Field> tenant_fields() {
  Lister lister;
  TenantSpec defaults;
  visit_tenant(lister, defaults);
  return lister.take();
}

bool matches_any(const std::vector<std::string>& patterns, std::string_view text) {
  return std::ranges::any_of(patterns, [&](std::string_view pattern) {
    return pattern.ends_with('*') ? text.starts_with(pattern.substr(0, pattern.size() - 1))
                                  : text == pattern;
  });
}

}  // namespace dsm::api
