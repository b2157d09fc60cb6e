"""`GET /metrics`: all figures in the text format of Prometheus (or OpenMetrics, when asked for it).

Figures come from Postgres, so that every web process gives the same ones: counters that are kept (`execution.counters`)
and gauges of what is so now. A process asks once in ``METRICS_CACHE_SECONDS`` however often it is scraped. Read by
whoever has the token, comes directly from an allowed network, or may see processes (`execution.view_processreport`).
"""

from __future__ import annotations

import hmac
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.settings import api_settings

import execution.metrics
import schedules.metrics
import triggers.metrics
from execution import counters
from scheduling_project.common.logs import get_logger
from scheduling_project.common.metrics import SECONDS, Metric, Samples
from scheduling_project.common.permissions import may
from triggers import addresses
from triggers.auth.rest import address_of

log = get_logger(__name__)

PERMISSION: Final = "execution.view_processreport"
PARTS: Final = (execution.metrics, schedules.metrics, triggers.metrics)
METRICS: Final[tuple[Metric, ...]] = tuple(metric for part in PARTS for metric in part.METRICS)
SOURCES: Final = tuple(source for part in PARTS for source in part.SOURCES)
#: How this scrape itself went.
SCRAPE: Final = (
    Metric("scheduling_scrape_seconds", "gauge", "What it took to collect these figures."),
    Metric("scheduling_up", "gauge", "1 when Postgres could be asked."),
)


@dataclass(slots=True)
class Figures:
    """What was found at one moment."""

    counted: Mapping[str, Mapping[tuple[str, ...], float]] = field(default_factory=dict)
    gauges: dict[str, Samples] = field(default_factory=dict)


def collect(*, using: str = "default") -> Figures:
    """Ask Postgres for everything.

    Raises:
        django.db.DatabaseError: it is away.
    """
    counters.look(SOURCES, using=using)
    gauges: dict[str, Samples] = {}
    for part in PARTS:
        gauges |= part.gauges(using)
    return Figures(counters.read(using=using), gauges)


def families(figures: Figures) -> Iterator[Family]:
    """The figures as Prometheus knows them. Pure."""
    for metric in (*METRICS, *SCRAPE):
        if metric.kind == "counter":
            counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, value in sorted(figures.counted.get(metric.name, {}).items()):
                counter.add_metric(labels, value)
            yield counter
        elif metric.kind == "gauge":
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, value in sorted(figures.gauges.get(metric.name, {}).items()):
                gauge.add_metric(labels, value)
            yield gauge
        else:
            yield _histogram(metric, figures)


def _histogram(metric: Metric, figures: Figures) -> Family:
    kept = figures.counted.get(f"{metric.name}_bucket", {})
    total, buckets = 0.0, []
    for place, bound in enumerate([*map(str, SECONDS), "+Inf"]):
        total += kept.get((str(place),), 0.0)
        buckets.append((bound, total))
    family = HistogramMetricFamily(metric.name, metric.help)
    family.add_metric([], buckets, sum_value=figures.counted.get(f"{metric.name}_sum", {}).get((), 0.0))
    return family


class Database:
    """A collector that keeps what it found for a few seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self._figures = Figures()

    def collect(self) -> Iterator[Family]:
        return families(self.figures())

    def figures(self) -> Figures:
        """The present figures; with Postgres away nothing but that it is."""
        with self._lock:  # a second scrape waits for the first one's answer instead of asking as well
            began = time.monotonic()
            if began >= self._until:
                try:
                    self._figures = collect()
                except (DatabaseError, InterfaceError) as error:
                    log.warning("metrics.postgres_away", error=type(error).__name__)
                    self._figures = Figures(gauges={"scheduling_up": {(): 0.0}})
                else:
                    took = time.monotonic() - began
                    self._figures.gauges |= {"scheduling_up": {(): 1.0}, "scheduling_scrape_seconds": {(): took}}
                self._until = time.monotonic() + settings.METRICS_CACHE_SECONDS
            return self._figures

    def forget(self) -> None:
        """Ask anew next time."""
        self._until = 0.0


database: Final = Database()
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)
REGISTRY.register(database)


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """All figures, or 401 or 403 for who may not read them."""
    status = refusal(request)
    if status:
        headers = {"WWW-Authenticate": 'Bearer realm="metrics"'} if status == 401 else {}
        return HttpResponse("not allowed\n", status=status, content_type="text/plain", headers=headers)
    encode: Callable[[CollectorRegistry], bytes]
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return HttpResponse(encode(REGISTRY), content_type=content_type)


def refusal(request: HttpRequest) -> int:
    """401 or 403 for who may not read them, else 0."""
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    token = settings.METRICS_TOKEN
    if token and kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return 0
    if _is_near(request):
        return 0
    schemes: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES
    asked = Request(request, authenticators=[scheme() for scheme in schemes])
    try:
        if not asked.user.is_authenticated:
            return 401
    except APIException:
        return 401
    return 0 if may(asked, PERMISSION) else 403


def _is_near(request: HttpRequest) -> bool:
    """Whether it comes from an allowed network. What passed a proxy that we do not know could come from anywhere."""
    behind_proxy = settings.SECURE_PROXY_SSL_HEADER is not None
    if not behind_proxy and ("X-Forwarded-For" in request.headers or "Forwarded" in request.headers):
        return False
    if behind_proxy and "X-Forwarded-For" not in request.headers and "Forwarded" in request.headers:
        return False
    networks = [ipaddress.ip_network(network, strict=False) for network in settings.METRICS_ALLOWED_NETWORKS]
    return addresses.is_in(address_of(request.META), networks)
