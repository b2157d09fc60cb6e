"""The demo's step tasks: real work on files and in Postgres, some of it flaky or poisoned on purpose."""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from celery import Task
from django.conf import settings
from django.db.models import Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

from execution.step_tasks import step_task
from execution.steps.context import current
from scheduling_project.demo.models import Sale

SHOPS = ("Berlin", "Lisbon", "Oslo")


class PartnerUnavailable(ConnectionError):
    """The partner's service did not answer; it usually does a moment later."""


class BadInvoice(ValueError):
    """An invoice that nobody can read; trying again does not help."""


def folder() -> Path:
    """Where the demo keeps its files."""
    path = Path(settings.DATA_DIR) / "demo"
    path.mkdir(parents=True, exist_ok=True)
    return path


def today() -> date:
    """The day of the instant that this execution stands for; the clock's when nothing scheduled it."""
    context = current()
    instant: datetime = (context and context.scheduled_for) or timezone.now()
    return instant.date()


@step_task(name="demo.tasks.extract")
def extract(orders: int = 20, day: str | None = None) -> dict[str, Any]:
    """Write a day's orders of every shop into files; returns one part per shop."""
    when = date.fromisoformat(day) if day else today()
    context = current()
    run = str(context.execution_id)[-8:] if context else "manual"
    parts = []
    for shop in SHOPS:
        path = folder() / f"orders-{when}-{shop}-{run}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            dice = random.Random(f"{when}{shop}{run}")
            writer.writerows(
                (f"{shop}-{run}-{number}", shop, when.isoformat(), dice.randint(100, 20_000))
                for number in range(orders)
            )
        parts.append({"shop": shop, "path": str(path), "orders": orders})
    return {"day": when.isoformat(), "parts": parts}


@step_task(name="demo.tasks.load")
def load(part: Mapping[str, Any]) -> dict[str, Any]:
    """Load one file into the warehouse. An order that is there already is not counted twice."""
    with Path(part["path"]).open(newline="", encoding="utf-8") as file:
        sales = [
            Sale(order_id=order_id, shop=shop, day=date.fromisoformat(day), cents=int(cents), loaded_at=timezone.now())
            for order_id, shop, day, cents in csv.reader(file)
        ]
    Sale.objects.bulk_create(
        sales, update_conflicts=True, unique_fields=["order_id"], update_fields=["cents", "loaded_at"]
    )
    time.sleep(0.2)  # so that the timeline has something to show
    return {"shop": part["shop"], "loaded": len(sales)}


@step_task(
    name="demo.tasks.ask_partner",
    bind=True,
    autoretry_for=(PartnerUnavailable,),
    retry_backoff=1,
    retry_backoff_max=5,
    retry_jitter=True,
    max_retries=5,
)
def ask_partner(self: Task[Any, Any], fail_times: int = 2) -> dict[str, Any]:
    """Ask a partner's service that fails the first times, on purpose, and answers then."""
    attempt = self.request.retries + 1
    if attempt <= fail_times:
        raise PartnerUnavailable(f"the partner did not answer attempt {attempt}")
    return {"rate": 1.08, "answered_on_attempt": attempt}


@step_task(name="demo.tasks.report")
def report(day: str, rate: float = 1.0) -> dict[str, Any]:
    """Sum a day's sales and write a report file."""
    total = Sale.objects.filter(day=day).aggregate(cents=Coalesce(Sum("cents"), 0))["cents"]
    summary = {"day": day, "eur": round(total / 100, 2), "usd": round(total * rate / 100, 2)}
    (folder() / f"report-{day}.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary


@step_task(name="demo.tasks.read_invoice")
def read_invoice(invoice: Mapping[str, Any]) -> dict[str, Any]:
    """Read an invoice; one without a numeric amount is poisoned and ends in the dead letters."""
    amount = invoice.get("amount")
    if not isinstance(amount, int | float):
        raise BadInvoice(f"invoice {invoice.get('number')}: the amount {amount!r} is not a number")
    return {"number": invoice.get("number"), "amount": amount}


@step_task(name="demo.tasks.book_invoice")
def book_invoice(number: str, amount: float) -> dict[str, Any]:
    """Append a read invoice to the ledger file."""
    with (folder() / "invoices.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"number": number, "amount": amount}) + "\n")
    return {"booked": number}


@step_task(name="demo.tasks.sleep")
def sleep(seconds: float = 1.0) -> dict[str, float]:
    """Take a while (for trying out cancel, kill and shutdown)."""
    context = current()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(0.2, left))
        if context is not None:
            context.check()
    return {"slept": seconds}
