"""What a metric is, for those who describe theirs and for the page that shows all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Samples = Mapping[tuple[str, ...], float]

#: Upper bounds of histograms of time, in seconds.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of samples. `name` without ``_total``; labels have few values each, never ids."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


#: Reads gauges: per name of a metric its samples by label values.
Gauges = Callable[[str], Mapping[str, Samples]]
