// Kubernetes quantities ("2", "500m", "4Gi") as numbers that can be added and compared. Plain
// functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dsm::api {

// In thousandths, rounded up as Kubernetes does with what is finer; exact up to 9e15 (8 Ti).
// nullopt when the text is no quantity.
std::optional<double> milli_of(std::string_view quantity);

// The shortest text of so many thousandths of a resource: binary units for memory and storage.
std::string quantity_text(std::string_view resource, double milli);

// Whether two texts are the same amount: "1000m" and "1" are.
bool same_quantity(std::string_view a, std::string_view b);

}  // namespace dsm::api
