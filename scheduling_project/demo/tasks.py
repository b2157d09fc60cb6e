"""The demo's step tasks: real work on files, in Postgres and over HTTP, some of it flaky or poisoned on purpose."""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from celery import Task
from django.conf import settings
from django.db import transaction
from django.db.models import F, Sum
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from execution.step_tasks import step_task
from execution.steps.context import current
from scheduling_project.demo import partner
from scheduling_project.demo.models import Order, Product, Sale
from scheduling_project.demo.partner import PartnerUnavailable

SHOPS: Final = ("Berlin", "Lisbon", "Oslo")
#: Seconds for which files are kept.
KEPT: Final = 1_800
#: Units that a product has after it was ordered anew.
FULL: Final = 100


class BadInvoice(ValueError):
    """An invoice that nobody can read; trying again does not help."""


class OutOfStock(ValueError):
    """The warehouse has too little of a product."""


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


def _attempt(task: Task[Any, Any]) -> int:
    return int(task.request.retries or 0) + 1


# ── Sales ────────────────────────────────────────────────────────────────────────────────────────────────────


@step_task(name="demo.tasks.extract")
def extract(orders: int = 20, day: str | None = None) -> dict[str, Any]:
    """Write a day's sales of every shop into files; returns one part per shop."""
    when = date.fromisoformat(day) if day else today()
    context = current()
    run = str(context.execution_id)[-8:] if context else "manual"
    parts = []
    for shop in SHOPS:
        path = folder() / f"sales-{when}-{shop}-{run}.csv"
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
    """Load one file into the warehouse. A sale that is there already is not counted twice."""
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
    """Ask a partner's HTTP service for rates; it fails the first times, on purpose, and answers then."""
    attempt = _attempt(self)
    rates = partner.ask("/rates", attempt=attempt, fail_times=fail_times)["rates"]
    return {"rate": rates["USD"], "rates": rates, "answered_on_attempt": attempt}


@step_task(name="demo.tasks.report")
def report(day: str, rate: float = 1.0) -> dict[str, Any]:
    """Sum a day's sales and write a report file."""
    total = Sale.objects.filter(day=day).aggregate(cents=Coalesce(Sum("cents"), 0))["cents"]
    summary = {"day": day, "eur": round(total / 100, 2), "usd": round(total * rate / 100, 2)}
    (folder() / f"report-{day}.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary


@step_task(name="demo.tasks.totals")
def totals() -> dict[str, Any]:
    """What each shop has sold, all days together."""
    rows = Sale.objects.values_list("shop").annotate(cents=Sum("cents")).order_by("shop")
    return {"shops": {shop: round(cents / 100, 2) for shop, cents in rows}}


@step_task(name="demo.tasks.publish")
def publish(name: str, content: Any) -> dict[str, str]:
    """Write a result where others read it: whole, or not at all."""
    path = folder() / f"{Path(name).name}.json"
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=2), encoding="utf-8")
    draft.replace(path)
    return {"published": path.name}


@step_task(name="demo.tasks.tidy_up")
def tidy_up(seconds: float = KEPT) -> dict[str, int]:
    """Delete files that are older than so many seconds."""
    before = (timezone.now() - timedelta(seconds=seconds)).timestamp()
    old = [path for path in folder().glob("sales-*.csv") if path.stat().st_mtime < before]
    for path in old:
        path.unlink(missing_ok=True)
    return {"deleted": len(old)}


# ── Invoices ─────────────────────────────────────────────────────────────────────────────────────────────────


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


@step_task(name="demo.tasks.open_ticket")
def open_ticket(workflow: str, execution: str, reason: str = "") -> dict[str, str]:
    """Note a failed execution for the people who look after the workflow."""
    path = folder() / f"ticket-{execution}.txt"
    path.write_text(f"{workflow} failed: {reason or 'see the dead letters'}\n", encoding="utf-8")
    return {"ticket": path.name}


# ── Orders ───────────────────────────────────────────────────────────────────────────────────────────────────


@step_task(name="demo.tasks.reserve")
def reserve(order_id: str, product: str, units: int = 1) -> dict[str, Any]:
    """Take an order's units off the stock; the same order takes them once, however often this runs."""
    with transaction.atomic():
        held = Product.objects.select_for_update().filter(name=product).first()
        if held is None:
            raise OutOfStock(f"order {order_id}: there is no product {product!r}")
        _, is_new = Order.objects.get_or_create(order_id=order_id, defaults={"product": held, "units": units})
        if is_new:
            if held.units < units:
                raise OutOfStock(f"order {order_id}: {units} of {product} wanted, {held.units} there")
            held.units -= units
            held.save(update_fields=["units"])
    return {"order_id": order_id, "product": product, "left": held.units}


@step_task(
    name="demo.tasks.charge",
    bind=True,
    autoretry_for=(PartnerUnavailable,),
    retry_backoff=1,
    retry_backoff_max=3,
    retry_jitter=False,
    max_retries=3,
)
def charge(self: Task[Any, Any], order_id: str, fail_times: int = 1) -> dict[str, Any]:
    """Charge an order at the partner, whose terminal is a little flaky."""
    attempt = _attempt(self)
    partner.ask(f"/charges/{order_id}", attempt=attempt, fail_times=fail_times)
    Order.objects.filter(order_id=order_id).update(state="charged")
    return {"order_id": order_id, "charged_on_attempt": attempt}


@step_task(name="demo.tasks.give_back")
def give_back(order_id: str) -> dict[str, Any]:
    """Undo a reservation, once."""
    with transaction.atomic():
        order = Order.objects.select_for_update().filter(order_id=order_id, state="reserved").first()
        if order is not None:
            Product.objects.filter(pk=order.product_id).update(units=F("units") + order.units)
            Order.objects.filter(pk=order.pk).update(state="given back")
    return {"order_id": order_id, "given_back": order is not None}


@step_task(name="demo.tasks.write_label")
def write_label(order_id: str) -> dict[str, str]:
    """Write the label of a parcel."""
    path = folder() / f"label-{Path(order_id).name}.txt"
    path.write_text(f"ORDER {order_id}\n", encoding="utf-8")
    Order.objects.filter(order_id=order_id).update(state="shipped")
    return {"label": path.name}


@step_task(name="demo.tasks.order_anew")
def order_anew(product: str) -> dict[str, Any]:
    """Fill the stock of a product up."""
    Product.objects.filter(name=product).update(units=Greatest(F("units"), FULL))
    return {"product": product, "units": FULL}


@step_task(name="demo.tasks.count_stock")
def count_stock() -> dict[str, Any]:
    """What the warehouse holds."""
    return {"products": dict(Product.objects.order_by("name").values_list("name", "units"))}


# ── To try things out ────────────────────────────────────────────────────────────────────────────────────────


@step_task(
    name="demo.tasks.fragile",
    bind=True,
    autoretry_for=(PartnerUnavailable,),
    retry_backoff=1,
    retry_backoff_max=2,
    retry_jitter=False,
    max_retries=2,
)
def fragile(self: Task[Any, Any], broken: bool = False) -> dict[str, Any]:
    """Ask the partner; while it is `broken` no attempt is answered."""
    attempt = _attempt(self)
    partner.ask("/fragile", attempt=attempt, fail_times=attempt if broken else 0)
    return {"answered_on_attempt": attempt}


@step_task(name="demo.tasks.sleep")
def sleep(seconds: float = 1.0) -> dict[str, float]:
    """Take a while (for trying out cancel, kill and shutdown, and for nightly jobs that have some weight)."""
    context = current()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(0.2, left))
        if context is not None:
            context.check()
    return {"slept": seconds}
