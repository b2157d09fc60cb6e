"""Procrastinate: jobs and what became of them are rows in Postgres, which is its broker too.

python -m tests.benchmarks.peers.jobs prepare            make its tables
python -m tests.benchmarks.peers.jobs send COUNT         defer so many jobs
procrastinate -a tests.benchmarks.peers.jobs.app worker  run them (one process; two are started)
"""

from __future__ import annotations

import os
import sys

import procrastinate

from tests.benchmarks.execution_app import stamp

BATCH = 200

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"]))


@app.task(name="jobs.stamp")
async def task() -> None:
    """Note when it ran."""
    stamp.write()


def main() -> None:
    """``prepare`` or ``send COUNT``, from the command line."""
    command = sys.argv[1]
    connector = procrastinate.SyncPsycopgConnector(conninfo=os.environ["DATABASE_URL"])
    with app.replace_connector(connector) as sync, sync.open():
        if command == "prepare":
            sync.schema_manager.apply_schema()
        elif command == "send":
            count = int(sys.argv[2])
            for sent in range(0, count, BATCH):
                task.batch_defer(*[{} for _ in range(min(BATCH, count - sent))])
