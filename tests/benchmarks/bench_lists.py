"""What a page of fifty costs, with many executions behind it.

    python -m tests.benchmarks.bench_lists [--json PATH] [--quick]

Starts its own Postgres (with fsync) and Redis, writes 100,000 and then 1,000,000 ended executions (with --quick only
the former), and asks for pages of 50 through the whole API (authentication, permissions, filters, serializers, JSON)
in this process: the first page, one deep in the list, and the lists by state, workflow, source and age.

Bar: the best of each kind ≤ 60 ms at any size, and at 1,000,000 rows not more than twice that at 100,000 plus 5 ms.
The best says what the work takes; the median and the 95th percentile also tell what else the machine is doing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_webhooks import percentile, servers

BAR_MS = 60.0
ROUNDS = 20
ROWS = """
INSERT INTO execution_execution (id, workflow_id, version_id, source_kind, source_id, source_label, input, news_topic,
    priority, queue, concurrency_key, state, state_reason, open_steps, failed_steps, created_at, finished_at)
SELECT ('019a0000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, %(workflow)s, %(version)s, 'schedule',
    (n %% 1000)::text, '', '{}', '', 6, '', '', CASE WHEN n %% 1000 = 0 THEN 'failed' ELSE 'succeeded' END, '', 0, 0,
    now() - make_interval(secs => %(last)s - n), now() - make_interval(secs => %(last)s - n)
FROM generate_series(%(first)s::int, %(last)s::int) AS n
"""


def lists(client: Any) -> dict[str, str]:
    """Each kind of page and its address."""
    deep = "/api/executions?limit=500"
    for _ in range(20):
        deep = client.get(deep).json()["next"]
    return {
        "first": "/api/executions?limit=50",
        "deep": deep.replace("limit=500", "limit=50"),
        "oldest": "/api/executions?limit=50&ordering=created_at",
        "failed": "/api/executions?limit=50&state=failed",
        "workflow": "/api/executions?limit=50&workflow=bench",
        "source": "/api/executions?limit=50&source_kind=schedule&source_id=7",
        "sparse": "/api/executions?limit=50&fields=id,state",
    }


def measure(count: int) -> dict[str, float]:
    """Milliseconds per kind of page: the best, the median and the 95th percentile."""
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient

    client = APIClient(SERVER_NAME="localhost")
    client.force_authenticate(User.objects.get_or_create(username="bench", is_superuser=True)[0])
    figures = {}
    for kind, path in lists(client).items():
        client.get(path)
        spent = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            page = client.get(path)
            spent.append((time.perf_counter() - begun) * 1000)
            assert len(page.json()["results"]) == 50, (kind, page.json())
        figures[f"{kind}_{count}_best_ms"] = min(spent)
        figures[f"{kind}_{count}_p50_ms"] = statistics.median(spent)
        figures[f"{kind}_{count}_p95_ms"] = percentile(spent, 0.95)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    figures: dict[str, Any] = {"python": platform.python_version(), "cpus": os.cpu_count()}
    sizes = [100_000] if chosen.quick else [100_000, 1_000_000]
    with tempfile.TemporaryDirectory(prefix="bench-lists-") as name, servers(Path(name)):
        from django.db import connection

        from execution import workflows

        steps = {"steps": {"later": {"wait": "1d"}}}
        workflow = workflows.create("bench", steps, actor="bench")
        first = 1
        for count in sizes:
            row = {"workflow": workflow.pk, "version": workflow.published_id, "first": first, "last": count}
            with connection.cursor() as cursor:
                cursor.execute(ROWS, row)
                cursor.execute("ANALYZE execution_execution")
            figures |= measure(count)
            first = count + 1
        figures["load_average"] = os.getloadavg()[0]
    broken = [key for key, value in figures.items() if key.endswith("best_ms") and value > BAR_MS]
    if not chosen.quick:
        small, large = (f"_{count}_best_ms" for count in sizes)
        grown = [key for key in figures if key.endswith(large)]
        broken += [key for key in grown if figures[key] > 2 * figures[key.replace(large, small)] + 5]
    for key, value in figures.items():
        mark = "   BROKEN" if key in broken else ""
        print(f"{key:30} {value:10.3f}{mark}" if isinstance(value, float) else f"{key:30} {value}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
