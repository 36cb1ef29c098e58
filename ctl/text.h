// Lines of coloured pieces, and how they are put on a terminal, a pipe or into a file. Pure values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace dsm::ctl {

// What the reader's device can show. The default is a pipe: plain ASCII, lines of any length.
struct Style {
  bool colour = false;   // ANSI escapes
  bool unicode = false;  // box drawing and blocks
  int width = 0;         // columns after which a line is cut; 0: never
};

enum class Colour { kPlain, kGood, kBusy, kBad, kFaint };

struct Span {
  std::string text;
  Colour colour = Colour::kPlain;
};
using Line = std::vector<Span>;

// A line and what is below it.
struct Node {
  Line line;
  std::vector<Node> children;
};

// One line, with its end.
std::string to_text(const Line& line, const Style& style);
// The node and everything below it, with guides.
std::string to_text(const Node& root, const Style& style);

// Columns as wide as their widest cell; the last one is not padded.
std::string table(const std::vector<std::vector<std::string>>& rows, const Style& style);

// "[#####...............]"; `part` is cut to 0..1.
std::string progress_bar(double part, int cells, const Style& style);

// "4m", "3h", "12d": one unit, as kubectl says ages. Never negative.
std::string age_text(WallTime from, WallTime now);

// Control characters replaced: texts of a cluster do not steer a terminal.
std::string printable(std::string_view text);

}  // namespace dsm::ctl
