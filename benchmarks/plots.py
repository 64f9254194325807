"""Pictures of the results: grouped bars as SVG, written by hand so that no library is needed to draw or to look.

Owns: one file for each `Picture`. A bar is a median, the line on it goes from the least to the largest round.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from benchmarks.figures import Row, figure, spread
from benchmarks.results import CONFLUENT, NATIVE_KAFKA, NATIVE_ZMQ, SYSTEMS, Results

COLOURS = {"zafka": "#1f6f8b", "zafka os": "#7fb7be", "kafka": "#c8553d", "kafka flush": "#f0a890", "ceiling": "#bbbbbb",
           CONFLUENT: "#8c6bb1", NATIVE_ZMQ: "#1f6f8b", NATIVE_KAFKA: "#7fb7be"}
LABEL_WIDTH, BAR_WIDTH, MARGIN, BAR_HEIGHT, GAP = 270, 420, 16, 14, 12
TEXT = 'font-family="sans-serif" font-size="12"'


@dataclass(frozen=True)
class Picture:
    """rows: names that begin so. Rows are drawn each on a scale of its own: their units differ."""

    file: str
    title: str
    suite: str
    rows: tuple[str, ...]
    without: tuple[str, ...] = ("CPU", "disk", "p99")


PICTURES = (
    Picture("throughput", "Records a second, confluent-kafka: longer is better", "throughput", ("produce", "consume")),
    Picture("cpu", "CPU seconds of all broker processes per million records: shorter is better", "throughput",
            ("produce 100 B: broker", "produce 1 kB: broker", "consume 100 B: broker", "consume 1 kB: broker"), ()),
    Picture("small", "One record per request, requests a second: longer is better", "small", ("small requests",)),
    Picture("latency", "Latency, milliseconds: shorter is better", "latency", ("ack at", "end to end"), ()),
    Picture("partitions", "Records a second over partitions: longer is better", "partitions", ("produce", "consume")),
    Picture("groups", "Seconds until a group of ten is settled: shorter is better", "groups", ("group,",), ()),
    Picture("connections", "2,000 connections, milliseconds: shorter is better", "connections",
            ("2,000 connections: ack", "2,000 connections: to a long poll", "200 members beside: to their hands"), ()),
    Picture("native", "Records a second from Python, every value as bytes: longer is better", "native", ("send", "consume")),
)


def wanted(picture: Picture, rows: list[Row]) -> list[Row]:
    return [
        row for row in rows
        if row.name.startswith(picture.rows) and not any(word in row.name for word in picture.without)
    ]


def svg(title: str, rows: list[Row]) -> str:
    """One group of bars for each row, one bar for each system that was measured."""
    width = MARGIN * 2 + LABEL_WIDTH + BAR_WIDTH + 170
    used = [system for system in SYSTEMS if any(row.values.get(system) for row in rows)]
    parts = [f'<text x="{MARGIN}" y="24" {TEXT} font-weight="bold">{escape(title)}</text>']
    for number, system in enumerate(used):
        x = MARGIN + number * 190
        parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[system]}"/>')
        parts.append(f'<text x="{x + 18}" y="46" {TEXT}>{escape(SYSTEMS[system])}</text>')
    y = 66
    for row in rows:
        parts.append(f'<text x="{MARGIN}" y="{y + 11}" {TEXT}>{escape(row.name)} ({escape(row.unit)})</text>')
        drawn = bars(row, y)
        parts += drawn
        y += len([system for system in used if row.values.get(system)]) * BAR_HEIGHT + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + MARGIN}" role="img">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def bars(row: Row, y: float) -> list[str]:
    found = {system: spread(row.values.get(system, ())) for system in SYSTEMS}
    largest = max((one.high for one in found.values() if one), default=0.0) or 1.0
    parts = []
    x = MARGIN + LABEL_WIDTH
    for system, one in found.items():
        if one is None:
            continue
        middle = y + BAR_HEIGHT / 2 - 1
        low, at, high = (x + value / largest * BAR_WIDTH for value in (one.low, one.median, one.high))
        parts += [
            f'<rect x="{x}" y="{y}" width="{at - x:.1f}" height="{BAR_HEIGHT - 2}" fill="{COLOURS[system]}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#333" stroke-width="1.5"/>',
            f'<text x="{high + 6:.1f}" y="{y + 10}" {TEXT}>{figure(one.median)}</text>',
        ]
        y += BAR_HEIGHT
    return parts


def draw(results: Results, folder: Path) -> list[Path]:
    """Write every picture whose suite was measured; returns the files."""
    files = []
    for picture in PICTURES:
        rows = wanted(picture, results.rows(picture.suite))
        if rows:
            file = folder / f"{picture.file}.svg"
            file.write_text(svg(picture.title, rows))
            files.append(file)
    return files
