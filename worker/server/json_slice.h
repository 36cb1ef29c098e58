// The texts of values inside a JSON text, as the client wrote them. A JSON Schema goes to the model
// and to the grammar with its properties in the client's order, which a parsed (sorted) object has
// lost. Pure functions; the slices point into the argument.
//
// The text must be valid JSON that is not nested deeply: what follows parse_object().
#pragma once

#include <string_view>
#include <vector>

namespace dsm::server {

// The value of an object's member; the last one of that name, as the parser takes it. Empty when
// there is none.
std::string_view member_text(std::string_view object, std::string_view name);
// The values of an array, in order.
std::vector<std::string_view> element_texts(std::string_view array);

}  // namespace dsm::server
