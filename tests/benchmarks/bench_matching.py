"""How long it takes to find the triggers of an event among 10,000.

    python -m tests.benchmarks.bench_matching [--json PATH] [--quick]

Three populations: triggers of many types, all of one type that differ in one value, and a mix with prefixes, ranges
and alternatives. Bars: the median ≤ 0.5 ms an event, p99 ≤ 2 ms; a hostile event ≤ 100 ms.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from execution import patterns
from triggers.matching import Rule, TriggerIndex

MEDIAN_BAR_MS, P99_BAR_MS, HOSTILE_BAR_MS = 0.5, 2.0, 100.0


def event(type: str, data: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "type": type,
        "source": "/shop",
        "subject": "",
        "time": "2026-03-01T09:00:00Z",
        "data": data,
        "endpoint": "",
        "headers": {},
        "extensions": {},
    }


def rule(number: int, types: tuple[str, ...], pattern: dict[str, Any], endpoint: str | None = None) -> Rule:
    return Rule(number, endpoint, types, patterns.compile(pattern or {"type": [{"exists": True}]}))


def by_type(count: int) -> list[Rule]:
    return [rule(n, (f"order.{n % 1_000}",), {"data": {"total": [{"numeric": [">", n % 97]}]}}) for n in range(count)]


def by_value(count: int) -> list[Rule]:
    return [
        rule(n, ("order.paid",), {"data": {"customer": {"id": [n]}, "country": [["CH", "DE", "AT"][n % 3]]}})
        for n in range(count)
    ]


def mixed(count: int) -> list[Rule]:
    rules = []
    for n in range(count):
        kind = n % 5
        if kind == 0:
            rules.append(rule(n, (f"team{n % 500}.*",), {"data": {"total": [{"numeric": [">", 10]}]}}))
        elif kind == 1:
            rules.append(rule(n, (), {"data": {"order": {"id": [f"o-{n}", f"p-{n}"]}}}, "shop"))
        elif kind == 2:
            rules.append(rule(n, ("order.paid",), {"$or": [{"data": {"sku": [f"s-{n}"]}}, {"data": {"sku": [n]}}]}))
        elif kind == 3:
            rules.append(rule(n, (f"invoice.{n}", f"credit.{n}"), {}))
        else:
            rules.append(rule(n, ("order.paid",), {"data": {"tags": [f"t-{n}"], "total": [{"numeric": ["<", n]}]}}))
    return rules


def an_event(dice: random.Random, count: int) -> dict[str, Any]:
    number = dice.randrange(count)
    return event(
        dice.choice([f"order.{number % 1_000}", "order.paid", f"team{number % 500}.x", f"invoice.{number}", "other"]),
        {
            "total": dice.randrange(200),
            "customer": {"id": number, "name": "Ada"},
            "country": dice.choice(["CH", "DE", "AT", "FR"]),
            "order": {"id": f"o-{number}", "items": [{"sku": f"s-{dice.randrange(count)}"} for _ in range(5)]},
            "sku": f"s-{number}",
            "tags": [f"t-{dice.randrange(count)}" for _ in range(4)],
        },
    )


def measure(rules: list[Rule], events: list[dict[str, Any]], endpoint: str | None) -> dict[str, float]:
    begun = time.perf_counter()
    index = TriggerIndex(rules)
    built = (time.perf_counter() - begun) * 1000
    times, found = [], 0
    for one in events:
        begun = time.perf_counter()
        found += len(index.match(one, endpoint))
        times.append((time.perf_counter() - begun) * 1000)
    for one in events[:20]:  # the slow way finds the same
        slow = {r.id for r in rules if r.endpoint_id in (None, endpoint) and r.why_not(one) is None}
        assert slow == {r.id for r in index.match(one, endpoint)}
    return {
        "median_ms": statistics.median(times),
        "p99_ms": sorted(times)[int(len(times) * 0.99)],
        "matches_per_event": found / len(events),
        "build_ms": built,
    }


def hostile(rules: list[Rule]) -> float:
    index = TriggerIndex(rules)
    deep: Any = 1
    for _ in range(60):
        deep = {"data": deep, "order": deep} if _ < 12 else [deep]
    events = [
        event("order.paid", {f"k{n}": n for n in range(50_000)}),
        event("order.paid", {"tags": [[n] for n in range(100_000)]}),
        event("order.paid", {"order": [{"id": n} for n in range(50_000)]}),
        event("order.paid", deep),
        event("x" * 200, None),
    ]
    worst = 0.0
    for one in events:
        begun = time.perf_counter()
        index.match(one, "shop")
        worst = max(worst, (time.perf_counter() - begun) * 1000)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    count = 10_000
    dice = random.Random(11)
    events = [an_event(dice, count) for _ in range(200 if chosen.quick else 2_000)]
    figures: dict[str, Any] = {"python": platform.python_version(), "triggers": count, "events": len(events)}
    held = True
    for name, make in {"many types": by_type, "one type": by_value, "mixed": mixed}.items():
        found = measure(make(count), events, "shop")
        figures[name] = found
        good = found["median_ms"] <= MEDIAN_BAR_MS and found["p99_ms"] <= P99_BAR_MS
        held &= good
        shown = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
        print(f"{name:12} {shown}   {'held' if good else 'BROKEN'}")
    worst = figures["hostile_ms"] = hostile(mixed(count))
    held &= worst <= HOSTILE_BAR_MS
    print(f"{'hostile':12} {worst:.1f} ms at worst   {'held' if worst <= HOSTILE_BAR_MS else 'BROKEN'}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
