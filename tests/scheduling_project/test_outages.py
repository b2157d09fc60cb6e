"""An outage is told when it begins, once a minute, and when it is over."""

from __future__ import annotations

from structlog.testing import capture_logs

from scheduling_project.common.outages import REMINDER, OutageLog


def test_an_outage_of_minutes_is_a_few_lines() -> None:
    outage = OutageLog("broker")
    with capture_logs() as lines:
        outage.succeeded()
        for second in range(130):
            outage.failed(OSError("refused"), at=1_000.0 + second, hints=1)
        outage.succeeded(at=1_130.0)
        outage.succeeded(at=1_131.0)
    told = [(line["event"], line.get("failures"), line.get("seconds")) for line in lines]
    reminded = int(REMINDER) + 1
    assert told == [
        ("broker_away", 1, None),
        ("broker_away", reminded, None),
        ("broker_away", reminded + int(REMINDER), None),
        ("broker_back", 130, 130.0),
    ]
    assert (lines[0]["error"], lines[0]["hints"], lines[0]["log_level"]) == ("refused", 1, "warning")


def test_the_next_outage_is_told_at_once() -> None:
    outage = OutageLog("broker")
    with capture_logs() as lines:
        for _ in range(2):
            outage.failed(OSError("refused"))
            outage.succeeded()
    assert [line["event"] for line in lines] == ["broker_away", "broker_back"] * 2
