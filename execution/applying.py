"""Documents that become rows: all of them or none, with every mistake named by its path, or a dry run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from scheduling_project.common.errors import DomainError, InvalidInput

Problems = dict[str, list[str]]


@dataclass(slots=True)
class Applied:
    """What was, or (dry run) would be done, by name; per updated thing its differences."""

    created: list[str] = field(default_factory=list)
    updated: dict[str, dict[str, Any]] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "created": self.created,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "pruned": self.pruned,
        }

    def as_text(self, *, dry_run: bool) -> str:
        """For people: a line per thing and per difference, and a sum."""
        lines = [f"+ {name}" for name in self.created]
        for name, difference in self.updated.items():
            lines.append(f"~ {name}")
            for label, change in difference.items():
                before, after = (json.dumps(change[when], ensure_ascii=False) for when in ("before", "after"))
                lines.append(f"    {label}: {before} → {after}")
        lines += [f"- {name}" for name in self.pruned]
        done = "would be" if dry_run else "were"
        lines.append(
            f"{len(self.created)} {done} created, {len(self.updated)} changed, {len(self.pruned)} deleted; "
            f"{len(self.unchanged)} are as they should be."
        )
        return "\n".join(lines)


class _DryRun(Exception):
    """Rolls a dry run back."""


@contextmanager
def all_or_nothing(*, dry_run: bool, using: str = "default") -> Iterator[Problems]:
    """A transaction that is rolled back for a dry run, and when problems were noted.

    Raises:
        InvalidInput: with all problems that were noted inside.
    """
    problems: Problems = {}
    try:
        with transaction.atomic(using=using):
            yield problems
            if problems:
                raise InvalidInput("Nothing was applied.", fields=problems)
            if dry_run:
                raise _DryRun
    except _DryRun:
        pass


@contextmanager
def noting(problems: Problems, path: str, *, using: str = "default") -> Iterator[None]:
    """A savepoint: what a document's own deed refuses is noted under its path, and the next document has its turn."""
    try:
        with transaction.atomic(using=using):
            yield
    except DomainError as error:
        fields = error.fields or {"": [error.message]}
        problems.update({f"{path}.{name}".rstrip("."): list(rules) for name, rules in fields.items()})


def named(documents: Sequence[Any], kind: str, problems: Problems) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each document that is an object with a name of its own, and its path (``<kind>.<index>``)."""
    names: set[str] = set()
    for index, document in enumerate(documents):
        path = f"{kind}.{index}"
        if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
            problems[path] = ["must be an object with a name"]
        elif document["name"] in names:
            problems[f"{path}.name"] = ["is named twice"]
        else:
            names.add(document["name"])
            yield path, document
