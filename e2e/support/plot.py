"""Numbers over time as an SVG file, without a library."""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 360, 50, 40, 20, 50
COLOURS = ("#c0392b", "#2471a3", "#229954", "#7d3c98")

# Seconds since the beginning and the number; None where it was not known.
Series = list[tuple[float, float | None]]


def _steps(points: Series, x, y) -> str:
    """An SVG path that keeps a number until the next one, and breaks where there is none."""
    path, before = [], None
    for time, value in points:
        if value is None:
            before = None
            continue
        if before is None:
            path.append(f"M{x(time):.1f},{y(value):.1f}")
        else:
            path.append(f"L{x(time):.1f},{y(before):.1f}L{x(time):.1f},{y(value):.1f}")
        before = value
    return "".join(path)


def write_svg(file: Path, title: str, series: dict[str, Series]) -> None:
    longest = max((p[0] for points in series.values() for p in points), default=1) or 1
    highest = max((p[1] or 0 for points in series.values() for p in points), default=1) or 1

    def x(time: float) -> float:
        return LEFT + time / longest * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / highest * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>']
    for i in range(int(highest) + 1):
        if i % max(1, int(highest) // 8) == 0:
            parts.append(f'<path d="M{LEFT},{y(i):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                         f'<text x="{LEFT - 8}" y="{y(i) + 4:.1f}" text-anchor="end">{i}</text>')
    step = max(5, int(longest / 10) // 5 * 5)
    for second in range(0, int(longest) + 1, step):
        parts.append(f'<text x="{x(second):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{second} s</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<path d="{_steps(points, x, y)}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{LEFT + number * 200}" y="{HEIGHT - 10}" fill="{colour}">{escape(name)}</text>')
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(parts) + "\n</svg>\n")
