"""Charts as inline SVG: bars with intervals, learning curves, an interval in a table row, gain against loss.

Colours come from the page's classes, so that a chart works in light and dark. Every text is escaped. Widths are those
of a narrow telephone; the page scales them.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup


def svg(width: float, height: float, body: Sequence[Markup], label: str, style: str = "") -> Markup:
    """A drawing with a text for those who cannot see it."""
    return Markup(
        '<svg viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}" class="{}">{}</svg>'
    ).format(width, height, width, height, label, style, Markup("").join(body))


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, style)


def rect(x: float, y: float, width: float, height: float, style: str, radius: float = 0) -> Markup:
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="{}" class="{}"/>').format(
        x, y, max(width, 0), max(height, 0), radius, style
    )


def text(x: float, y: float, words: str, style: str = "", anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, style, anchor, words
    )


def circle(x: float, y: float, radius: float, style: str, title: str = "") -> Markup:
    inner = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}">{}</circle>').format(
        x, y, radius, style, inner
    )


def polyline(points: Sequence[tuple[float, float]], style: str) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline points="{}" class="{}"/>').format(path, style)


def ticks(low: float, high: float, count: int = 3) -> list[float]:
    """Round values that span [low, high]: the first is not above low, the last not below high.

    >>> ticks(0, 0.83)
    [0.0, 0.5, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A tick's number, without needless digits."""
    if value and (abs(value) < 0.001 or abs(value) >= 1e5):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4g}"


def interval(
    centre: float,
    low: float | None,
    high: float | None,
    *,
    extent: float,
    style: str,
    tolerance: float | None,
    label: str,
) -> Markup:
    """A difference with its interval on an axis from -extent to extent; right is better.

    centre, low, high: signed so that positive is better. tolerance: the zone left of it is where a loss counts.
    """
    width, height, pad = 150.0, 22.0, 6.0
    middle = height / 2

    def at(value: float) -> float:
        share = max(-1.0, min(1.0, value / extent)) if extent else 0.0
        return width / 2 + share * (width / 2 - pad)

    body = [line(pad, middle, width - pad, middle, "axis")]
    if tolerance is not None and 0 < tolerance < extent:
        body.append(rect(0, 3, at(-tolerance), height - 6, "zone"))
    body.append(line(width / 2, 2, width / 2, height - 2, "zero"))
    if low is not None and high is not None:
        body.append(line(at(low), middle, at(high), middle, f"whisker {style}"))
    if abs(centre) > extent:  # off the axis: an arrow head instead of a point
        tip, back = (pad - 5, pad + 3) if centre < 0 else (width - pad + 5, width - pad - 3)
        points = f"{tip},{middle} {back},{middle - 5} {back},{middle + 5}"
        body.append(Markup('<polygon points="{}" class="dot {}"/>').format(points, style))
    else:
        body.append(circle(at(centre), middle, 3.6, f"dot {style}"))
    return svg(width, height, body, label, "interval")


def bars(rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]], float | None]]) -> Markup:
    """Bars from 0 to 100 % with intervals.

    rows: (name, bars as (style, value, low, high) within 0..1, floor or None); the floor is drawn as a dotted mark.
    """
    width, left, right, bar, gap = 360.0, 4.0, 44.0, 11.0, 30.0
    span = width - left - right
    body, y = [], 4.0
    height = sum(gap + len(group) * (bar + 3) for _, group, _ in rows) + 18
    for share in (0, 0.25, 0.5, 0.75, 1):
        body.append(line(left + share * span, 4, left + share * span, height - 16, "grid"))
        body.append(text(left + share * span, height - 3, f"{share:.0%}", "tick", "start" if share == 0 else "middle"))
    for name, group, floor in rows:
        body.append(text(left, y + 14, name, "name"))
        y += 20
        top = y
        for style, value, low, high in group:
            body.append(rect(left, y, value * span, bar, f"bar {style}", 1.5))
            body.append(line(left + low * span, y + bar / 2, left + high * span, y + bar / 2, "error"))
            body.append(text(left + max(value, high) * span + 6, y + bar - 1.5, f"{value:.0%}", "value"))
            y += bar + 3
        if floor is not None:
            body.append(line(left + floor * span, top - 3, left + floor * span, y, "floor"))
        y += gap - 20
    told = "; ".join(
        f"{name}: " + ", ".join(f"{style} {value:.0%}" for style, value, _, _ in group) for name, group, _ in rows
    )
    return svg(width, height, body, f"Success. {told}", "chart")


def curve(points: Sequence[tuple[float, float]], label: str) -> Markup:
    """One figure over steps; beyond 40 points, each point is faint and their running mean is drawn over them."""
    width, height, left, right, top, bottom = 360.0, 150.0, 44.0, 10.0, 8.0, 20.0
    points = sorted(points)
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    x_low, x_high = points[0][0], points[-1][0]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    body = []
    for tick in y_ticks:
        y = at(x_low, tick)[1]
        body += [line(left, y, width - right, y, "grid"), text(left - 6, y + 3.5, short(tick), "tick", "end")]
    body.append(text(left, height - 4, short(x_low), "tick"))
    body.append(text(width - right, height - 4, f"step {short(x_high)}", "tick", "end"))
    drawn = [at(x, y) for x, y in points]
    if len(points) == 1:
        body.append(circle(*drawn[0], 3, "dot after"))
    elif len(points) > 40:
        body.append(polyline(drawn, "trace faint"))
        window = len(points) // 20
        means = [_mean([y for _, y in points[max(0, n - window) : n + window + 1]]) for n in range(len(points))]
        body.append(polyline([at(x, y) for (x, _), y in zip(points, means, strict=True)], "trace"))
    else:
        body.append(polyline(drawn, "trace"))
    told = (
        f"{label}: from {short(points[0][1])} at step {short(x_low)} to {short(points[-1][1])} at step {short(x_high)}"
    )
    return svg(width, height, body, told, "chart")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def scatter(points: Sequence[tuple[float, float, float, float, float, str, str]]) -> Markup:
    """Runs by loss (across) and gain (up); the area of a circle is its cost.

    points: (gain, low, high, loss, cost, style, title): gain in points, loss in tolerances, cost in any unit. Runs are
    numbered in the order given.
    """
    width, height, left, right, top, bottom = 460.0, 340.0, 42.0, 20.0, 30.0, 44.0
    y_ticks = ticks(min(0.0, *(p[1] for p in points)), max(10.0, *(p[2] for p in points)), 5)
    x_ticks = ticks(min(0.0, *(p[3] for p in points)), max(1.5, *(p[3] for p in points)) * 1.05, 5)

    def x_of(loss: float) -> float:
        return left + (loss - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (width - left - right)

    def y_of(gain: float) -> float:
        return height - bottom - (gain - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (height - top - bottom)

    body = [rect(x_of(1), top, width - right - x_of(1), height - top - bottom, "zone")]
    for tick in y_ticks:
        body.append(line(left, y_of(tick), width - right, y_of(tick), "zero" if tick == 0 else "grid"))
        body.append(text(left - 8, y_of(tick) + 4, f"{tick:+.0f}" if tick else "0", "tick", "end"))
    for tick in x_ticks:
        body.append(text(x_of(tick), height - bottom + 16, short(tick), "tick", "middle"))
    body.append(line(x_of(1), top, x_of(1), height - bottom, "limit"))
    body.append(text(x_of(1) + 5, top + 13, "beyond tolerance", "tick"))
    body.append(text(left, height - 6, "worst loss, in multiples of its tolerance →", "name"))
    body.append(text(4, 14, "↑ gain in success, points", "name"))
    most = max((p[4] for p in points), default=0) or 1
    for n, (gain, low, high, loss, cost, style, title) in sorted(enumerate(points), key=lambda p: -p[1][4]):
        x, y = x_of(loss), y_of(gain)
        body.append(line(x, y_of(low), x, y_of(high), f"whisker {style}"))
        body.append(circle(x, y, 7 + 8 * math.sqrt(cost / most), f"run {style}", title))
        body.append(text(x, y + 4.5, str(n + 1), "number", "middle"))
    told = "; ".join(f"{n + 1}: {p[6]}" for n, p in enumerate(points))
    return svg(width, height, body, f"Gain against loss. {told}", "chart wide")
