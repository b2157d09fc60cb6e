"""The cron engine beside croniter and cronsim, in one run, on 50 expressions as people write them.

    python tests/benchmarks/bench_cron.py [--json PATH] [--seconds 0.05] [--zone America/New_York]

Every engine starts from the same instants, a day before the zone's clocks change in spring, and is asked for the
next fires one after the other. Ours starts with empty caches for the figures called cold. Ratios above 1 mean
that ours is faster by that factor.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import croniter
import cronsim
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from schedules.timing.cron import expression as cron
from schedules.timing.cron import search as cron_search
from schedules.timing.zones import zone_of

EXPRESSIONS = """
* * * * *
*/2 * * * *
*/5 * * * *
*/10 * * * *
*/15 * * * *
*/20 * * * *
*/30 * * * *
0 * * * *
15 * * * *
5,35 * * * *
0,15,30,45 * * * *
7-59/10 * * * *
*/5 9-17 * * *
*/5 9-17 * * 1-5
*/15 8-18 * * MON-FRI
*/30 6-22 * * *
0 */2 * * *
0 */4 * * *
30 */6 * * *
0 9-17 * * 1-5
0 0,12 * * *
0 6,14,22 * * *
10 1,13 * * 1-6
0 0 * * *
30 2 * * *
15 3 * * *
45 23 * * *
0 9 * * 1-5
30 8 * * MON-FRI
0 18 * * FRI
0 0 * * 0
0 4 * * SUN
30 5 * * 6,0
15 10 * * TUE,THU
0 0 1 * *
0 6 1 * *
30 1 15 * *
0 0 1,15 * *
0 3 1-7 * *
0 12 * 1-6 *
0 0 1 1 *
0 9 1 */3 *
0 0 1 JAN,JUL *
0 22 * * 1-4
5 4 * * SUN
23 0-20/2 * * *
0 8 1-10 * *
59 23 31 12 *
0 0 29 2 *
0 0 13 * 5
""".strip().splitlines()

RARE = ("0 0 29 2 *", "0 0 13 * 5")
STEPS = 40


def per_call(work: Callable[[], int], seconds: float) -> float:
    """Microseconds per call: the best of several timed rounds of `work`, which returns how many calls it made."""
    best = float("inf")
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        calls = work()
        best = min(best, (time.perf_counter() - start) / calls * 1e6)
        rounds += 1
    return best


def clear_caches() -> None:
    """Forget every parsed expression and compiled search."""
    cron._parse.cache_clear()
    cron_search.search_of.cache_clear()
    cron_search.times_of_day.cache_clear()
    cron_search._month_strides.cache_clear()


def measure(expression: str, zone_name: str, seconds: float) -> dict[str, float]:
    """All figures of one expression, in microseconds per call."""
    zone = ZoneInfo(zone_name)
    start = datetime(2026, 3, 7, 12, 0, tzinfo=zone)
    epoch = int(start.timestamp())
    ours = cron.parse(expression)
    windows = zone_of(zone_name)

    def next_datetime() -> int:
        at: datetime = start
        for _ in range(STEPS):
            found = ours.next(at, zone_name)
            at = found if found is not None else start
        return STEPS

    def next_epoch() -> int:
        at = epoch
        for _ in range(STEPS):
            found = ours.next_epoch(at, windows)
            at = found if found is not None else epoch
        return STEPS

    def croniter_datetime() -> int:
        walk = croniter.croniter(expression, start)
        for _ in range(STEPS):
            walk.get_next(datetime)
        return STEPS

    def croniter_epoch() -> int:
        walk = croniter.croniter(expression, start)
        for _ in range(STEPS):
            walk.get_next(float)
        return STEPS

    def cronsim_datetime() -> int:
        walk = cronsim.CronSim(expression, start)
        for _ in range(STEPS):
            next(walk)
        return STEPS

    def parse_cold() -> int:
        clear_caches()
        began = time.perf_counter()
        cron.parse(expression)
        parse_times.append(time.perf_counter() - began)
        return 1

    def parse_croniter() -> int:
        for _ in range(10):
            croniter.croniter(expression, start)
        return 10

    def parse_cronsim() -> int:
        for _ in range(10):
            cronsim.CronSim(expression, start)
        return 10

    parse_times: list[float] = []
    per_call(parse_cold, seconds)
    clear_caches()
    began = time.perf_counter()
    cron.parse(expression).next(start, zone_name)
    first_answer = (time.perf_counter() - began) * 1e6
    return {
        "next": per_call(next_datetime, seconds),
        "next_epoch": per_call(next_epoch, seconds),
        "parse_cold": min(parse_times) * 1e6,
        "first_answer": first_answer,
        "croniter_next": per_call(croniter_datetime, seconds),
        "croniter_next_epoch": per_call(croniter_epoch, seconds),
        "croniter_parse": per_call(parse_croniter, seconds),
        "cronsim_next": per_call(cronsim_datetime, seconds),
        "cronsim_parse": per_call(parse_cronsim, seconds),
    }


def forecast(zone_name: str) -> tuple[int, float]:
    """(instants, seconds) of a forecast of 1,000 schedules over 30 days."""
    windows = zone_of(zone_name)
    start = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    end = start + int(timedelta(days=30).total_seconds())
    began = time.perf_counter()
    count = 0
    for index in range(1000):
        schedule = cron.parse(EXPRESSIONS[index % len(EXPRESSIONS)])
        for _ in schedule.between_epoch(start, end, windows):
            count += 1
    return count, time.perf_counter() - began


def main() -> None:
    """Measure, print the tables, and write the figures where asked."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", type=Path, help="write the figures to this file")
    arguments.add_argument("--seconds", type=float, default=0.03, help="time for each figure (default 0.03)")
    arguments.add_argument("--zone", default="America/New_York")
    options = arguments.parse_args()

    gc.disable()
    began = time.perf_counter()
    zone_of(options.zone)
    zone_load = time.perf_counter() - began
    rows = {expression: measure(expression, options.zone, options.seconds) for expression in EXPRESSIONS}
    instants, took = forecast(options.zone)
    gc.enable()

    console = Console(width=150)
    table = Table(title=f"microseconds per call, {options.zone}, {len(rows)} expressions")
    table.add_column("expression")
    for heading in (
        "next",
        "croniter",
        "×",
        "cronsim",
        "×",
        "epoch",
        "croniter",
        "×",
        "parse",
        "croniter",
        "×",
        "cronsim",
        "×",
    ):
        table.add_column(heading, justify="right")

    def ratio(peer: float, own: float) -> str:
        return f"{peer / own:.1f}"

    for expression, row in rows.items():
        table.add_row(
            expression,
            f"{row['next']:.2f}",
            f"{row['croniter_next']:.1f}",
            ratio(row["croniter_next"], row["next"]),
            f"{row['cronsim_next']:.1f}",
            ratio(row["cronsim_next"], row["next"]),
            f"{row['next_epoch']:.2f}",
            f"{row['croniter_next_epoch']:.1f}",
            ratio(row["croniter_next_epoch"], row["next_epoch"]),
            f"{row['parse_cold']:.1f}",
            f"{row['croniter_parse']:.1f}",
            ratio(row["croniter_parse"], row["parse_cold"]),
            f"{row['cronsim_parse']:.1f}",
            ratio(row["cronsim_parse"], row["parse_cold"]),
        )
    console.print(table)

    pairs: dict[str, tuple[str, str]] = {
        "next, aware datetimes": ("next", "croniter_next"),
        "next, epoch seconds": ("next_epoch", "croniter_next_epoch"),
        "parse, nothing cached": ("parse_cold", "croniter_parse"),
        "next, against cronsim": ("next", "cronsim_next"),
        "parse, against cronsim": ("parse_cold", "cronsim_parse"),
    }
    summary: dict[str, dict[str, float]] = {}
    totals = Table(title="ratios (peer / ours)")
    for heading in ("figure", "of the totals", "median", "worst"):
        totals.add_column(heading, justify="left" if heading == "figure" else "right")
    for label, (own, peer) in pairs.items():
        ratios = [row[peer] / row[own] for row in rows.values()]
        total = sum(row[peer] for row in rows.values()) / sum(row[own] for row in rows.values())
        summary[label] = {"total": total, "median": statistics.median(ratios), "worst": min(ratios)}
        totals.add_row(label, f"{total:.1f}", f"{statistics.median(ratios):.1f}", f"{min(ratios):.1f}")
    for expression in RARE:
        row = rows[expression]
        label = f"next of {expression}"
        summary[label] = {"total": row["croniter_next"] / row["next"]}
        totals.add_row(label, f"{summary[label]['total']:.1f}", "", "")
    console.print(totals)
    slowest = max(row["first_answer"] for row in rows.values())
    console.print(f"slowest parse and first answer, nothing cached: {slowest / 1000:.2f} ms")
    console.print(f"loading the zone: {zone_load * 1000:.2f} ms")
    console.print(f"forecast of 1,000 schedules over 30 days: {instants:,} instants in {took:.2f} s")
    if options.json:
        figures: dict[str, Any] = {
            "zone": options.zone,
            "unit": "microseconds per call",
            "expressions": rows,
            "ratios": summary,
            "slowest_first_answer_ms": slowest / 1000,
            "zone_load_ms": zone_load * 1000,
            "forecast": {"schedules": 1000, "days": 30, "instants": instants, "seconds": took},
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
