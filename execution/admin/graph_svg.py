"""A workflow drawn as SVG on the server: boxes for steps, curves for needs, colours for states. Pure."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from execution.admin.graph_layout import Layout, layout
from execution.admin.shown import tone
from execution.definition_schema import SECTIONS

WIDTH: Final = 188
HEIGHT: Final = 52
GAP_X: Final = 52
GAP_Y: Final = 20
MARGIN: Final = 8
#: Of the heading above a section.
HEADER: Final = 30
#: So that the heading of a section fits.
LEAST_WIDTH: Final = 260
#: Where the line above a section ends: beyond any drawing, which cuts it.
FAR: Final = 10_000
SECTION_WORDS: Final[Mapping[str, str]] = {
    "on_success": "on_success: when these have succeeded",
    "on_failure": "on_failure: when they have failed",
    "finally": "finally: last, however it ended",
}
KINDS: Final = ("task", "http", "wait", "approval", "workflow", "emit")
#: The second edge under a step that fans out.
MANY: Final = SafeString(f'<path d="M8 {HEIGHT + 3.5}H{WIDTH - 8}" class="sp-node-many"/>')


@dataclass(frozen=True, slots=True)
class StepLook:
    """How a step of an execution looks: its state, and a short line such as "2/3 items"."""

    state: str = ""
    note: str = ""


def draw(definition: Mapping[str, Any], looks: Mapping[str, StepLook] | None = None) -> SafeString:
    """The graph of a definition, with its sections below the main steps; `looks` colours its steps.

    Empty where it has no steps or they go in a circle.
    """
    looks = looks or {}
    if not definition.get("steps"):
        return SafeString("")
    drawn: list[tuple[SafeString]] = []
    width, bottom = 0, 0.0
    for section in ("", *SECTIONS):
        steps: Mapping[str, Any] = definition.get(section or "steps") or {}
        if not steps:
            continue
        try:
            placed = layout(
                {name: [need for need in step.get("needs", ()) if need in steps] for name, step in steps.items()}
            )
        except graphlib.CycleError:
            return SafeString("")
        top = bottom + (HEADER if section else 0)
        drawn.append((_part(section, steps, placed, looks, top),))
        width = max(width, LEAST_WIDTH if section else 0, placed.layers * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN)
        bottom = top + placed.rows * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    return format_html(
        '<svg class="sp-graph" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" '
        'aria-label="Graph of {count} steps">{parts}</svg>',
        w=width,
        h=round(bottom),
        count=len(all_steps(definition)),
        parts=format_html_join("", "{}", drawn),
    )


def _part(
    section: str, steps: Mapping[str, Any], placed: Layout, looks: Mapping[str, StepLook], top: float
) -> SafeString:
    """The main steps, or those of a section under its heading."""
    heading = SafeString("")
    if section:
        heading = format_html(
            '<path d="M{m} {y}H{far}" class="sp-section-line"/>'
            '<text x="{m}" y="{text}" class="sp-section">{words}</text>',
            m=MARGIN,
            y=round(top - HEADER + 6),
            far=FAR,
            text=round(top - 4),
            words=SECTION_WORDS[section],
        )
    nodes = ((_node(name, step, placed.places[name], looks.get(name)),) for name, step in steps.items())
    return format_html(
        '{}<g transform="translate(0 {})">{}{}</g>',
        heading,
        round(top, 1),
        _edges(placed, looks),
        format_html_join("", "{}", nodes),
    )


def _edges(placed: Layout, looks: Mapping[str, StepLook]) -> SafeString:
    drawn = []
    for start, _, points in placed.edges:
        done = looks.get(start, StepLook()).state == "succeeded"
        drawn.append((_path(points), " sp-edge-done" if done else ""))
    return format_html_join("", '<path d="{}" class="sp-edge{}"/>', drawn)


def _path(points: Sequence[tuple[int, float]]) -> str:
    places = [(_x(layer), _y(row) + HEIGHT / 2) for layer, row in points]
    x, y = places[0][0] + WIDTH, places[0][1]
    parts = [f"M{x:.0f} {y:.1f}"]
    for index, (next_x, next_y) in enumerate(places[1:], start=1):
        bend = GAP_X / 2
        parts.append(f"C{x + bend:.0f} {y:.1f} {next_x - bend:.0f} {next_y:.1f} {next_x:.0f} {next_y:.1f}")
        x, y = next_x, next_y
        if index < len(places) - 1:  # a dummy: straight through its layer
            x += WIDTH
            parts.append(f"H{x:.0f}")
    return "".join(parts)


def _node(name: str, step: Mapping[str, Any], place: tuple[int, float], look: StepLook | None) -> SafeString:
    kind = kind_of(step)
    x, y = _x(place[0]), _y(place[1])
    note = look.note if look else ""
    state = look.state if look else ""
    return format_html(
        '<g class="sp-node{tone}" transform="translate({x} {y})"><title>{title}</title>'
        '<rect width="{w}" height="{h}" rx="8"/>{many}'
        '<text x="12" y="21" class="sp-node-name">{name}</text>'
        '<text x="12" y="39" class="sp-node-kind">{line}</text></g>',
        tone=f" sp-{tone(state)}" if state else "",
        x=round(x),
        y=round(y, 1),
        w=WIDTH,
        h=HEIGHT,
        title=f"{name}: {target_of(step)}" + (f" ({state})" if state else ""),
        many=MANY if "for_each" in step else "",
        name=_cut(name, 23),
        line=_cut(" · ".join(part for part in (state, note) if part) or target_of(step) or kind, 29),
    )


def all_steps(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition's steps with those of its sections."""
    return {name: step for part in ("steps", *SECTIONS) for name, step in (definition.get(part) or {}).items()}


def in_order(definition: Mapping[str, Any]) -> list[str]:
    """The names of a definition's steps, each after those that it needs (Postgres keeps no order of members).

    Those of its sections follow, in the order in which sections run.
    """
    return [name for part in ("steps", *SECTIONS) for name in _in_order(definition.get(part) or {})]


def _in_order(steps: Mapping[str, Any]) -> list[str]:
    needs = {name: [need for need in steps[name].get("needs", ()) if need in steps] for name in sorted(steps)}
    try:
        return list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError:
        return list(steps)


def kind_of(step: Mapping[str, Any]) -> str:
    """The kind of a step of a definition."""
    return next((kind for kind in KINDS if kind in step), "")


def target_of(step: Mapping[str, Any]) -> str:
    """What a step runs, in a few words."""
    kind = kind_of(step)
    value = step.get(kind)
    if kind == "task":
        return str(value)
    if isinstance(value, Mapping):
        if kind == "http":
            return f"{value.get('method', 'GET')} {value.get('url', '')}"
        return f"{kind} {next((item for item in value.values() if isinstance(item, str | int)), '')}".strip()
    return f"{kind} {value}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _x(layer: int) -> float:
    return MARGIN + layer * (WIDTH + GAP_X)


def _y(row: float) -> float:
    return MARGIN + row * (HEIGHT + GAP_Y)
