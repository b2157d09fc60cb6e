"""The admin's page that applies a file."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from execution.models import Workflow
from schedules.models import Schedule
from scheduling_project.apply_page import EXAMPLE, MOST_BYTES
from scheduling_project.unfold import APPLY
from tests.admin_client import Browser, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def root() -> Browser:
    return Browser(superuser=True)


def url() -> str:
    return reverse("apply")


def test_a_document_is_seen_first_then_applied_then_seen_to_be_as_it_should_be(root: Browser) -> None:
    assert "Hello every hour" in root.page(url())
    seen = root.post(url(), {"document": EXAMPLE, "look": "1"}).content.decode()
    assert "Nothing has been done yet" in seen
    assert not Workflow.objects.exists()
    assert told(root.post(url(), {"document": EXAMPLE, "apply": "1"}))[-1].startswith("Applied: 2 created, 0 changed")
    assert Schedule.objects.get().workflow.name == "hello"
    again = root.post(url(), {"document": EXAMPLE}).content.decode()
    assert "Everything is as it should be" in again
    changed = root.post(url(), {"document": EXAMPLE.replace("0 * * * *", "5 * * * *")}).content.decode()
    assert "<s>" in changed
    assert "5 * * * *" in changed


def test_a_file_takes_the_place_of_what_is_typed_and_may_prune(root: Browser) -> None:
    root.post(url(), {"document": EXAMPLE, "apply": "1"})
    file = SimpleUploadedFile("empty.yaml", b"schedules: []\n")
    seen = root.post(url(), {"document": EXAMPLE, "file": file, "prune": "on"}).content.decode()
    assert "Delete" in seen or "delete" in seen
    file.seek(0)
    applied = told(root.post(url(), {"file": file, "prune": "on", "apply": "1"}))
    assert applied[-1] == "Applied: 0 created, 0 changed, 1 deleted."
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "Give a document, or a file."),
        ("a: [", "This cannot be read"),
        ("a: &x [1]\nb: *x\n", "references (*name) are not taken"),
        ("nonsense: []", "is not a section"),
        ("schedules: [{name: a, workflow: missing}]", "schedules.0"),
        ("[" * 2000, "This cannot be read"),
    ],
)
def test_a_document_with_a_mistake_changes_nothing_and_says_where(root: Browser, document: str, said: str) -> None:
    answer = root.post(url(), {"document": document, "apply": "1"})
    assert (answer.status_code, said in answer.content.decode()) == (400, True)
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(("content", "said"), [(b"\xff", "is not UTF-8"), (b"#" * (MOST_BYTES + 1), "at most")])
def test_a_file_that_cannot_be_taken_says_why(root: Browser, content: bytes, said: str) -> None:
    answer = root.post(url(), {"file": SimpleUploadedFile("x.yaml", content)})
    assert (answer.status_code, said in answer.content.decode()) == (400, True)


def test_applying_needs_all_its_permissions_and_pruning_one_more() -> None:
    assert Browser(anonymous=True).get(url()).status_code == 302
    assert Browser(*APPLY[:-1]).get(url()).status_code == 403


def test_pruning_needs_the_permission_to_delete() -> None:
    editor = Browser(*APPLY)
    assert editor.post(url(), {"document": "schedules: []", "prune": "on"}).status_code == 403
    assert editor.post(url(), {"document": "schedules: []"}).status_code == 200
