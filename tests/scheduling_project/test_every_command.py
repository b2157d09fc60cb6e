"""What holds for every command of ours, whoever wrote it: help with examples that can be read, --json, exit codes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import CommandError, get_commands, load_command_class

from execution import secret_store
from schedules import lifecycle as schedules
from scheduling_project.environment import PROJECT_ROOT
from tests import factories
from tests.api_client import Api
from tests.commands import ends, read

OURS = ("scheduling_project", "execution", "schedules", "triggers")
#: Those that issue words to programs too; others only do something.
SHOWING = (
    "schedules", "workflows", "executions", "triggers", "events", "deadletters", "queues", "why", "cron", "stats",
    "doctor", "drill", "prune", "export", "apply", "createapikey",
)  # fmt: skip
#: What writes a document anyway, or a word per line.
DOCUMENTS = {"export"}
#: Those that only run something; their help needs no example.
BARE = {"up", "stop", "reset", "prepare", "wait", "demo"}
ENDS: list[tuple[str, ...]] = [
    ("schedules", "show", "nowhere"),
    ("workflows", "show", "nowhere"),
    ("executions", "show", "00000000-0000-0000-0000-000000000000"),
    ("triggers", "show", "nowhere"),
    ("events", "show", "00000000-0000-0000-0000-000000000000"),
    ("deadletters", "show", "00000000-0000-0000-0000-000000000000"),
    ("queues", "pause", "nowhere"),
    ("why", "00000000-0000-0000-0000-000000000000"),
    ("cron", "61 * * * *"),
    ("apply", "/nowhere.yaml"),
    ("createapikey", "k", "--user", "nobody"),
    ("drill", "no-such-drill"),
]


def names() -> list[str]:
    found = [path for app in OURS for path in (PROJECT_ROOT / app / "management/commands").glob("[a-z]*.py")]
    return sorted(path.stem for path in found)


def parser_of(name: str) -> argparse.ArgumentParser:
    return load_command_class(get_commands()[name], name).create_parser("manage.py", name)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in dict.fromkeys(action.choices.values()):
                yield from parsers(below)


def examples(name: str) -> list[str]:
    text = "\n".join(one.format_help() for one in parsers(parser_of(name)))
    return re.findall(rf"^\s*(?:[a-z-]+ .*\| )?manage\.py ({name}\b[^\n]*)", text, re.M)


@pytest.mark.parametrize("name", names())
def test_every_example_of_the_help_can_be_read(name: str) -> None:
    found = [one for one in examples(name) if "[" not in one]
    if name not in BARE:
        assert found, f"{name} --help shows no example"
    for example in found:
        line, *_ = re.split(r"\s{3,}|\s[|<>]\s", example.strip())  # what it does may stand beside it
        try:
            parser_of(name).parse_args(shlex.split(line)[1:])
        except (SystemExit, CommandError) as error:
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("name", SHOWING)
def test_what_is_shown_is_shown_to_programs_too(name: str) -> None:
    options = {
        option for one in parsers(parser_of(name)) for action in one._actions for option in action.option_strings
    }
    assert "--json" in options or name in DOCUMENTS
    assert name in names()


@pytest.mark.parametrize("name", names())
def test_a_line_that_cannot_be_read_ends_with_two(name: str) -> None:
    code, _, _ = ends_by_parsing(name, "--no-such-option")
    assert code == 2


def ends_by_parsing(name: str, *arguments: Any) -> tuple[int, str, str]:
    parser = parser_of(name)
    vars(parser)["called_from_command_line"] = True
    try:
        parser.parse_args(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0), "", ""
    return 0, "", ""


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", ENDS, ids=" ".join)
def test_what_cannot_be_done_ends_with_one_and_says_why(arguments: tuple[str, ...]) -> None:
    code, out, said = ends(*arguments)
    assert code in {1, 2}, (code, out)
    assert said.strip()
    assert "Traceback" not in said


@pytest.mark.django_db
def test_schedules_and_secrets_are_told_to_programs_in_the_shapes_of_the_api() -> None:
    factories.make_workflow("w")
    spec = {"timetables": [{"kind": "cron", "expression": "0 2 * * *"}]}
    made = schedules.create(name="nightly", workflow="w", spec=spec, actor="ada")
    secret_store.set_secret("TOKEN", "a-secret-value", actor="ada")
    api = Api()
    assert read("schedules", "list") == api.ok("get", "/api/schedules")["results"]
    assert read("schedules", "show", "nightly") == api.ok("get", f"/api/schedules/{made.pk}")
    assert read("secrets", "list") == api.ok("get", "/api/secrets")["results"]
