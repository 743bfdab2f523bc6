"""A chart of `tests.bench.peers`: for each row, each server's CPU time of a request in comparison with srvd's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP = 900, 190, 90, 12, 4
MOST = 8.0  # times srvd; longer bars are cut, and their figure says how long they are


def draw(rows: Mapping[str, Mapping[str, float]], native: Collection[str]) -> str:
    """An SVG. `rows` has for each title the CPU µs of each server; rows without srvd are left out."""
    parts: list[str] = []
    y = 30
    for title, figures in rows.items():
        if "srvd" not in figures:
            continue
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(title)}</text>')
        y += 8
        for server, cpu in sorted(figures.items(), key=lambda item: item[1]):
            ratio = cpu / figures["srvd"]
            width = (WIDTH - LEFT - RIGHT) * min(ratio, MOST) / MOST
            colour = "#1668b8" if server == "srvd" else "#8a8a8a" if server in native else "#c9c9c9"
            parts.append(f'<text x="{LEFT - 8}" y="{y + BAR - 2}" text-anchor="end">{escape(server)}</text>')
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + BAR - 2}">{cpu:.1f} ({ratio:.2f})</text>')
            y += BAR + GAP
        y += 24
    size = f'width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    note = "CPU µs of the whole server for a request (in comparison with srvd); dark grey: compiled servers"
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>',
                      f'<text x="10" y="14">{escape(note)}</text>', *parts, "</svg>", ""])  # fmt: skip
