"""Steps and their attempts on a time axis (a Gantt chart) and runs as bars, as SVG made on the server. Pure.

Times run in percent of the width, so that the drawing follows the page's width and its texts keep their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from execution.admin.shown import seconds_text, tone

ROW: Final = 26
AXIS: Final = 22
STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200)
DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt (or one stretch of waiting for the next): `end` None goes on until now."""

    begin: datetime
    end: datetime | None
    state: str
    title: str
    is_wait: bool = False


@dataclass(slots=True)
class Row:
    """One step run: its label, and bars from left to right."""

    label: str
    state: str
    anchor: str = ""
    bars: list[Bar] = field(default_factory=list)


def timeline(rows: Sequence[Row], *, begin: datetime, end: datetime) -> SafeString:
    """Rows of bars between two instants, with an axis of seconds since `begin`."""
    span = max((end - begin).total_seconds(), 0.001)
    height = AXIS + ROW * len(rows)
    return format_html(
        '<div class="sp-gantt"><div class="sp-gantt-labels" style="padding-top:{axis}px">{labels}</div>'
        '<svg width="100%" height="{height}" role="img" aria-label="Timeline of {count} steps over {span}">'
        "{ticks}{rows}</svg></div>",
        axis=AXIS,
        labels=format_html_join(
            "",
            '<a href="#{}" title="{}" style="height:{}px"><i class="sp-dot sp-{}"></i><span>{}</span></a>',
            ((row.anchor, row.label, ROW, tone(row.state), row.label) for row in rows),
        ),
        height=height,
        count=len(rows),
        span=seconds_text(span),
        ticks=_ticks(span, height),
        rows=format_html_join(
            "",
            "{}",
            ((_bars(row, AXIS + ROW * index, begin=begin, span=span, end=end),) for index, row in enumerate(rows)),
        ),
    )


def _bars(row: Row, top: int, *, begin: datetime, span: float, end: datetime) -> SafeString:
    def drawn() -> Iterator[tuple[Any, ...]]:
        for bar in row.bars:
            left = _percent(bar.begin - begin, span)
            width = max(_percent((bar.end or end) - bar.begin, span), 0)
            kind = "sp-wait-bar" if bar.is_wait else f"sp-bar sp-{tone(bar.state)}"
            y, height = (top + ROW / 2 - 1.5, 3) if bar.is_wait else (top + 5, ROW - 10)
            # A bar of no width would be invisible: 2 px at least, by the outline's stroke.
            yield kind, f"{left:.3f}%", y, f"{width:.3f}%", height, bar.title

    return format_html(
        '<rect x="0" y="{}" width="100%" height="{}" class="sp-gantt-row"/>{}',
        top,
        ROW,
        format_html_join(
            "",
            '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}</title></rect>',
            drawn(),
        ),
    )


def _percent(span: timedelta, whole: float) -> float:
    return span.total_seconds() / whole * 100


def _ticks(span: float, height: int) -> SafeString:
    step = next((step for step in STEPS if span / step <= 6), DAY * max(1, round(span / DAY / 5)))
    drawn = []
    tick = 0.0
    while tick < span * 0.97:
        drawn.append((f"{tick / span * 100:.3f}%", height, f"{tick / span * 100:.3f}%", _axis_text(tick)))
        tick += step
    return format_html_join(
        "",
        '<line x1="{0}" x2="{0}" y1="16" y2="{1}" class="sp-tick"/>'
        '<text x="{2}" y="11" class="sp-tick-text">{3}</text>',
        drawn,
    )


def _axis_text(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:g} s" if seconds == int(seconds) else f"{seconds:.1f} s"
    if seconds < 7_200:
        return f"{seconds / 60:g} min"
    return f"{seconds / 3_600:g} h" if seconds < 2 * DAY else f"{seconds / DAY:g} d"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a history: how long it took, how it ended, where its page is."""

    seconds: float
    state: str
    url: str
    title: str


def history(runs: Sequence[Run], *, slots: int = 60, height: int = 64) -> SafeString:
    """Runs as bars, oldest first: the height tells the duration, the colour the state."""
    shown = runs[-slots:]
    tallest = max((run.seconds for run in shown), default=0) or 1
    width = 100 / slots
    bars = []
    for index, run in enumerate(shown):
        tall = max(4.0, run.seconds / tallest * height)
        bars.append(
            (
                run.url,
                tone(run.state),
                f"{(slots - len(shown) + index) * width:.3f}%",
                f"{height - tall:.1f}",
                f"{width * 0.78:.3f}%",
                f"{tall:.1f}",
                run.title,
            )
        )
    return format_html(
        '<svg class="sp-history" width="100%" height="{}" role="img" aria-label="The latest {} runs">{}</svg>',
        height,
        len(shown),
        format_html_join(
            "",
            '<a href="{}"><rect class="sp-bar sp-{}" x="{}" y="{}" width="{}" height="{}" rx="1.5">'
            "<title>{}</title></rect></a>",
            bars,
        ),
    )
