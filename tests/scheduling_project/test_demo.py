"""The demo: seeding, its commands, the tour's page and the steps that the scenario does not play."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from execution import definitions
from execution.models import Execution, Workflow
from schedules import lifecycle
from schedules.models import Schedule
from scheduling_project.common.errors import NotFound
from scheduling_project.demo import partner, tasks, tour, webhook
from scheduling_project.demo.models import Order, Product, Sale
from scheduling_project.demo.workflows import WORKFLOWS
from tests.admin_client import Browser, told
from triggers.models import Trigger, WebhookEndpoint

pytestmark = pytest.mark.django_db


def demo(*words: str, **options: Any) -> str:
    output = io.StringIO()
    call_command("demo", *words, stdout=output, **options)
    return output.getvalue()


def test_what_is_there_already_is_left_alone() -> None:
    assert demo("seed") == "demo: 12 workflows, 18 schedules and 4 triggers made\n"
    lifecycle.delete(Schedule.objects.get(name="Close the month").pk, actor="test")
    Product.objects.filter(name="tea").update(units=1)
    assert demo("seed") == "demo: 0 workflows, 1 schedules and 0 triggers made\n"
    assert Product.objects.get(name="tea").units == 1
    assert (Trigger.objects.count(), WebhookEndpoint.objects.count()) == (4, 1)


def test_the_command_tells_what_there_is_to_see_with_a_line_that_delivers() -> None:
    text = demo(url="http://example.org/")
    assert "1. Bars that move by themselves" in text
    assert "http://example.org/admin/schedules/schedule/" in text
    assert "curl -sS -H 'content-type: application/json'" in text
    assert "manage.py drill kill-worker" in text
    assert demo("tour").count("\n\n") >= 8


def test_without_its_rows_the_demo_says_what_is_missing() -> None:
    with pytest.raises(CommandError, match="There is no endpoint shop-orders"):
        demo("curl")
    with pytest.raises(CommandError, match="There is no workflow try-it"):
        demo("break")
    assert "# There is no endpoint" in Browser(superuser=True).page(reverse("admin:demo_tour"))
    assert [stop.is_done for stop in tour.stops() if stop.now] == [False] * 5


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_workflow_of_the_demo_is_a_valid_definition(name: str) -> None:
    definitions.check(WORKFLOWS[name])


# ── The tour's page ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_tours_buttons_start_deliver_and_measure() -> None:
    demo("seed")
    root = Browser(superuser=True)
    text = root.page(reverse("admin:demo_tour"))
    assert "/hooks/" in text
    assert root.post(reverse("admin:demo_tour_deed", args=["break"])).status_code == 302
    assert Execution.objects.get().workflow.name == "try-it"
    assert "The door answered 202" in told(root.post(reverse("admin:demo_tour_deed", args=["deliver"])))[-1]
    assert "Nothing has been changed" in told(root.post(reverse("admin:demo_tour_deed", args=["spread"])))[-1]
    root.page(reverse("admin:demo_tour"))
    WebhookEndpoint.objects.update(state="paused")
    assert "The door answered 503" in told(root.post(reverse("admin:demo_tour_deed", args=["deliver"])))[-1]
    Workflow.objects.filter(name="try-it").update(name="gone")
    assert "There is no workflow" in told(root.post(reverse("admin:demo_tour_deed", args=["break"])))[-1]


def test_the_tours_buttons_are_posts_with_permissions() -> None:
    root, viewer = Browser(superuser=True), Browser("execution.view_execution")
    deed = reverse("admin:demo_tour_deed", args=["break"])
    assert root.get(deed).status_code == 405
    assert root.post(reverse("admin:demo_tour_deed", args=["explode"])).status_code == 404
    assert viewer.post(deed).status_code == 403
    assert "Break it" not in viewer.page(reverse("admin:demo_tour"))


def test_the_tour_is_for_those_who_may_see_executions() -> None:
    assert Browser("schedules.view_schedule").get(reverse("admin:demo_tour")).status_code == 403


def test_the_warehouse_has_lists() -> None:
    root = Browser(superuser=True)
    product = Product.objects.create(name="tea", units=3)
    Order.objects.create(order_id="o-1", product=product, units=2)
    Sale.objects.create(order_id="s-1", shop="Oslo", day="2026-03-04", cents=5)
    for model, expected in (("order", "o-1"), ("product", "tea"), ("sale", "s-1")):
        assert expected in root.page(reverse(f"admin:demo_{model}_changelist"))


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_partner_answers_over_http_once_it_is_well() -> None:
    with pytest.raises(partner.PartnerUnavailable, match="GET /rates: 503 Service Unavailable, attempt 2"):
        partner.ask("/rates", attempt=2, fail_times=2)
    assert partner.ask("/rates", attempt=3, fail_times=2)["rates"]["USD"] == 1.08


def test_an_order_takes_its_units_once_and_gives_them_back_once() -> None:
    Product.objects.create(name="tea", units=3)
    assert tasks.reserve("o-1", "tea", 2) == {"order_id": "o-1", "product": "tea", "left": 1}
    assert tasks.reserve("o-1", "tea", 2)["left"] == 1
    with pytest.raises(tasks.OutOfStock, match="o-2: 2 of tea wanted, 1 there"):
        tasks.reserve("o-2", "tea", 2)
    with pytest.raises(tasks.OutOfStock, match="there is no product 'gold'"):
        tasks.reserve("o-3", "gold")
    assert list(Order.objects.values_list("order_id", flat=True)) == ["o-1"]
    assert tasks.give_back("o-1")["given_back"]
    assert not tasks.give_back("o-1")["given_back"]
    assert Product.objects.get().units == 3
    tasks.order_anew("tea")
    assert tasks.count_stock() == {"products": {"tea": 100}}


def test_files_are_published_whole_and_tidied_up_by_age(tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path
    assert tasks.publish("../rates", {"USD": 1}) == {"published": "rates.json"}
    assert (tmp_path / "demo" / "rates.json").read_text() == '{\n  "USD": 1\n}'
    old, new = (tmp_path / "demo" / f"sales-{name}.csv" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 9_999,) * 2)
    assert tasks.tidy_up() == {"deleted": 1}
    assert new.exists()


def test_a_delivery_needs_an_endpoint() -> None:
    with pytest.raises(NotFound):
        webhook.endpoint()
