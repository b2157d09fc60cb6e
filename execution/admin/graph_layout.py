"""Where the steps of a workflow stand when it is drawn: layers from left to right. Pure.

The method is Sugiyama's: longest-path layers, a dummy in every layer that an edge passes, and a few sweeps that
put each node at the median of its neighbours (Gansner et al., "A technique for drawing directed graphs", 1993).
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SWEEPS: Final = 8
MOST_DUMMIES: Final = 2_000

Node = str | tuple[str, str, int]
"""A step's name, or a dummy: the edge that it belongs to and its layer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`places` are (layer, row) of each step, rows from 0 and not always whole; `edges` run through points."""

    places: Mapping[str, tuple[int, float]]
    edges: Sequence[tuple[str, str, Sequence[tuple[int, float]]]]
    layers: int
    rows: float


def layout(needs: Mapping[str, Sequence[str]]) -> Layout:
    """The layout of steps that each need others.

    >>> layout({"a": [], "b": ["a"]}).places
    {'a': (0, 0.0), 'b': (1, 0.0)}

    Raises:
        graphlib.CycleError: the steps need each other in a circle.
    """
    if not needs:
        return Layout({}, [], 0, 0)
    depth: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(needs).static_order():
        depth[name] = max((depth[need] + 1 for need in needs[name]), default=0)
    chains: list[tuple[str, str, list[Node]]] = []
    dummies = 0
    for name, before in needs.items():
        for need in before:
            between = range(depth[need] + 1, depth[name])
            dummies += len(between)
            middle: list[Node] = [] if dummies > MOST_DUMMIES else [(need, name, layer) for layer in between]
            chains.append((need, name, [need, *middle, name]))
    layers: list[list[Node]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in needs:
        layers[depth[name]].append(name)
    lefts: dict[Node, list[Node]] = {}
    rights: dict[Node, list[Node]] = {}
    for _, _, chain in chains:
        for node in chain[1:-1]:
            assert isinstance(node, tuple)
            layers[node[2]].append(node)
        for one, other in pairwise(chain):
            rights.setdefault(one, []).append(other)
            lefts.setdefault(other, []).append(one)
    _reduce_crossings(layers, lefts, rights)
    rows = _rows(layers, lefts)
    places = {name: (depth[name], rows[name]) for name in needs}
    edges = [
        (start, end, [(depth[node] if isinstance(node, str) else node[2], rows[node]) for node in chain])
        for start, end, chain in chains
    ]
    return Layout(places, edges, len(layers), max(rows.values()) + 1)


def _reduce_crossings(
    layers: list[list[Node]], lefts: Mapping[Node, list[Node]], rights: Mapping[Node, list[Node]]
) -> None:
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        order = range(1, len(layers)) if forward else range(len(layers) - 2, -1, -1)
        for index in order:
            beside = layers[index - 1 if forward else index + 1]
            position: dict[Node, int] = {node: place for place, node in enumerate(beside)}
            neighbours = lefts if forward else rights
            present = {node: place for place, node in enumerate(layers[index])}
            layers[index].sort(key=lambda node: _middle(node, neighbours, position, present))


def _middle(
    node: Node, neighbours: Mapping[Node, list[Node]], position: Mapping[Node, int], present: Mapping[Node, int]
) -> float:
    places = [position[other] for other in neighbours.get(node, ()) if other in position]
    return sum(places) / len(places) if places else present[node]


def _rows(layers: Sequence[Sequence[Node]], lefts: Mapping[Node, list[Node]]) -> dict[Node, float]:
    """Rows that keep the order, at least one apart, as near as possible to the nodes before; then layers centred."""
    tallest = max(len(layer) for layer in layers)
    rows: dict[Node, float] = {}
    for layer in layers:
        start = (tallest - len(layer)) / 2
        last = -1.0
        for index, node in enumerate(layer):
            wished = [rows[other] for other in lefts.get(node, ()) if other in rows]
            want = sum(wished) / len(wished) if wished else start + index
            # Leave room below for those that follow in this layer.
            last = rows[node] = max(last + 1, min(want, tallest - len(layer) + index))
    return rows
