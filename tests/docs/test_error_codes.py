"""The reference of error codes names every code that the source can answer with, and no other."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import execution
import schedules
import scheduling_project.common
import scheduling_project.live
import triggers
from scheduling_project.common import problems
from scheduling_project.common.errors import DomainError
from scheduling_project.environment import PROJECT_ROOT
from tests.docs.pages import DOCS

PACKAGES = (execution, schedules, triggers, scheduling_project.common, scheduling_project.live)
LITERAL = re.compile(r"\b_?problem\(\s*(\d{3}),\s*\"(\w+)\"")
ROW = re.compile(r"^\| `(\w+)` \| ([\d, ]+) \|", re.M)


def subclasses(kind: type[DomainError]) -> Iterator[type[DomainError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def in_the_source() -> set[tuple[str, int]]:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found = {(kind.code, kind.status) for kind in subclasses(DomainError) if not kind.__module__.startswith("tests.")}
    found |= {(code, kind.status_code) for kind, code in problems._CODES.items()}
    found.add(("token_not_valid", 401))  # simplejwt's own
    for path in sorted(PROJECT_ROOT.glob("*/**/*.py")):
        if path.relative_to(PROJECT_ROOT).parts[0] in {"execution", "schedules", "triggers", "scheduling_project"}:
            found |= {(code, int(status)) for status, code in LITERAL.findall(path.read_text())}
    return found


def test_every_code_of_the_source_is_in_the_reference_and_the_other_way_round() -> None:
    rows = ROW.findall((DOCS / "reference/errors.md").read_text())
    assert {(code, int(status)) for code, statuses in rows for status in statuses.split(",")} == in_the_source()
    assert len({code for code, _ in rows}) == len(rows)
