#include "ctl/text.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace dsm::ctl {
namespace {

// ANSI "select graphic rendition" of each Colour.
constexpr std::array<std::string_view, 5> kEscapes = {"", "\x1b[32m", "\x1b[33m", "\x1b[31m",
                                                      "\x1b[2m"};
constexpr std::string_view kReset = "\x1b[0m";

bool continues(char c) {
  return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;
}

// In code points, which are columns for what is printed here.
int columns(std::string_view text) {
  return static_cast<int>(std::ranges::count_if(text, [](char c) { return !continues(c); }));
}

std::string_view first_columns(std::string_view text, int count) {
  std::size_t end = 0;
  while (end < text.size() && (count > 0 || continues(text[end]))) {
    if (!continues(text[end])) --count;
    ++end;
  }
  return text.substr(0, end);
}

struct Guides {
  std::string_view branch, last, down, none;
};
constexpr Guides kAscii{"|-- ", "`-- ", "|   ", "    "};
constexpr Guides kBoxes{"├── ", "└── ", "│   ", "    "};

void add_below(const Node& node, const std::string& indent, const Style& style, std::string& out) {
  const Guides& guides = style.unicode ? kBoxes : kAscii;
  for (const Node& child : node.children) {
    const bool is_last = &child == &node.children.back();
    Line line = {Span{indent + std::string(is_last ? guides.last : guides.branch), Colour::kFaint}};
    line.insert(line.end(), child.line.begin(), child.line.end());
    out += to_text(line, style);
    add_below(child, indent + std::string(is_last ? guides.none : guides.down), style, out);
  }
}

}  // namespace

std::string to_text(const Line& line, const Style& style) {
  std::string out;
  int left = style.width > 0 ? style.width : -1;
  for (const Span& span : line) {
    std::string_view text = span.text;
    if (left >= 0) text = first_columns(text, left);
    if (left >= 0) left -= columns(text);
    const std::string_view escape = kEscapes[static_cast<std::size_t>(span.colour)];
    const bool painted = style.colour && !escape.empty() && !text.empty();
    if (painted) out += escape;
    out += text;
    if (painted) out += kReset;
  }
  while (out.ends_with(' ')) out.pop_back();
  return out + "\n";
}

std::string to_text(const Node& root, const Style& style) {
  std::string out = to_text(root.line, style);
  add_below(root, "", style, out);
  return out;
}

std::string table(const std::vector<std::vector<std::string>>& rows, const Style& style) {
  std::vector<int> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns(row[i]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) {
        line.append(static_cast<std::size_t>(widths[i] - columns(row[i]) + 3), ' ');
      }
    }
    out += to_text(Line{Span{line}}, style);
  }
  return out;
}

std::string progress_bar(double part, int cells, const Style& style) {
  const int full = static_cast<int>(std::floor(std::clamp(part, 0.0, 1.0) * cells));
  std::string out = "[";
  for (int i = 0; i < cells; ++i) {
    if (style.unicode) {
      out += i < full ? "█" : "░";
    } else {
      out += i < full ? '#' : '.';
    }
  }
  return out + "]";
}

std::string age_text(WallTime from, WallTime now) {
  const auto seconds = std::max<long>(0, std::chrono::duration_cast<Seconds>(now - from).count());
  if (seconds < 120) return std::to_string(seconds) + "s";
  if (seconds < 2L * 3600) return std::to_string(seconds / 60) + "m";
  if (seconds < 2L * 86400) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if (byte < 0x20 || byte == 0x7f) {
      out += ' ';
    } else if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // U+0080 to U+009F in UTF-8
      out += ' ';
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace dsm::ctl
