"""The optimiser's pages: a report is made, read, applied in part and as a whole, and put back."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from schedules import optimization
from schedules.admin.optimizer import draw_curve, effect_of, figures_of, said
from schedules.models import OptimizationChange, OptimizationReport, Schedule
from schedules.states import ChangeState
from schedules.timing.occurrences import normalise
from tests.admin_client import Browser, list_url, page_url, told
from tests.schedules.test_optimization import AT_TWO, crowd, worker

pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def make_report(**given: Any) -> OptimizationReport:
    worker()
    crowd()
    return optimization.report(actor="ann", days=2, **given)


def specs() -> list[Any]:
    return [schedule.version.spec for schedule in Schedule.objects.order_by("name") if schedule.version]


def test_the_empty_list_teaches_and_offers_a_report(root: Browser) -> None:
    page = root.page(list_url(OptimizationReport))
    assert "It changes nothing by itself" in page
    assert "New report" in page


def test_a_report_is_made_from_the_page_and_changes_nothing(root: Browser) -> None:
    worker()
    crowd()
    url = reverse("admin:schedules_optimizationreport_add")
    assert "Days to look ahead" in root.page(url)
    answer = root.post(url, {"report-days": "2", "report-tolerated": "5", "report-note": "nights"})
    made = OptimizationReport.objects.get()
    assert answer.headers["Location"] == page_url(made)
    assert (made.days, made.note, made.created_by) == (2, "nights", "root")
    assert all(spec["timetables"] == AT_TWO["timetables"] for spec in specs())


def test_a_report_that_makes_no_sense_is_refused_beside_its_field(root: Browser) -> None:
    url = reverse("admin:schedules_optimizationreport_add")
    answer = root.post(url, {"report-days": "4000", "report-tolerated": "5"})
    assert answer.status_code == 400
    assert "less than or equal" in answer.content.decode()
    assert not OptimizationReport.objects.exists()


def test_the_page_shows_figures_the_curve_and_every_proposal(root: Browser) -> None:
    made = make_report()
    page = root.page(page_url(made))
    assert "Wait, 95 of 100" in page
    assert "sp-will" in page
    for change in made.changes.all():
        assert change.label in page
    assert "Apply all" in page
    assert "Revert all" not in page
    assert page_url(made) in root.page(list_url(OptimizationReport))


def test_one_proposal_is_applied_then_all_then_everything_is_put_back(root: Browser) -> None:
    made = make_report()
    before = specs()
    one = made.changes.exclude(changes={}).first()
    assert one is not None
    answer = root.do(made, "apply", changes=str(one.pk), note="")
    assert told(answer)[-1:] == [f"“{one.label}” is applied."]
    assert made.changes.filter(state=ChangeState.APPLIED).count() == 1
    page = root.page(page_url(made))
    assert "by root" in page
    assert f'name="revert-changes" value="{one.pk}"' in page
    root.do(made, "apply", changes="", note="all of it")
    assert not made.changes.exclude(changes={}).filter(state=ChangeState.PROPOSED).exists()
    assert specs() != before
    assert "proposals are reverted" in told(root.do(made, "revert", changes="", note=""))[-1]
    assert specs() == before
    assert "nothing to revert" in told(root.do(made, "revert", changes="", note=""))[-1]


def test_what_was_changed_since_is_refused_with_its_reason(root: Browser) -> None:
    made = make_report()
    one = made.changes.filter(kind="move").first()
    assert one is not None
    OptimizationChange.objects.filter(pk=one.pk).update(before={"spec": {"other": 1}})
    assert "has been changed since" in told(root.do(made, "apply", changes=str(one.pk), note=""))[-1]
    assert root.do(made, "apply", changes="all", note="").status_code == 400
    assert not made.changes.filter(state=ChangeState.APPLIED).exists()


def test_those_who_may_only_look_have_no_buttons() -> None:
    made = make_report()
    staff = Browser("schedules.view_optimizationreport")
    page = staff.page(page_url(made))
    assert "apply-changes" not in page
    assert "Apply all" not in page
    assert staff.do(made, "apply", changes="", note="").status_code == 403
    assert staff.get(reverse("admin:schedules_optimizationreport_add")).status_code == 403


def test_proposals_are_written_for_people() -> None:
    at_two, jitter = normalise(AT_TWO), normalise({**AT_TWO, "jitter": 600})
    row = OptimizationChange(
        subject="x", changes={"spec": jitter, "priority": 3}, before={"spec": at_two, "priority": 6}
    )
    assert "At 02:00" in said(row)
    assert "priority: <s>6</s> → <b>3</b>" in said(row)
    broken = OptimizationChange(subject="x", changes={"spec": {"timetables": "?" * 200}}, before={"spec": None})
    assert "…" in said(broken)
    assert "–" in effect_of(row)


def test_less_is_better_in_the_figures() -> None:
    report = OptimizationReport(
        before={"wait_p95": 9.0, "skipped": 1, "wait_max": 3}, after={"wait_p95": 1.0, "skipped": 2, "wait_max": 3}
    )
    tones = {figure["label"]: figure["tone"] for figure in figures_of(report)}
    assert (tones["Wait, 95 of 100"], tones["Skipped by overlap"], tones["Longest wait"]) == ("good", "warn", "")


def test_a_long_curve_is_drawn_in_so_many_bars_and_none_at_all_is_no_error() -> None:
    point = {
        "fires": 1,
        "utilisation": 0.5,
        "waited": 0,
        "longest": 0,
        "fires_after": 1,
        "utilisation_after": 0.2,
        "waited_after": 0,
        "longest_after": 0,
    }
    points = [{**point, "start": f"2026-03-{1 + at // 24:02}T{at % 24:02}:00:00Z"} for at in range(24 * 20)]
    assert draw_curve(points).count('class="sp-was"') == 160
    assert "<rect" not in draw_curve([])
