"""The parts of the documentation that are made from the code. ``python -m tests.docs.pages`` writes them anew.

`test_pages` fails while a page and the code differ.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args, get_origin

from scheduling_project.environment import LAPTOP_SECRET_KEY, PROJECT_ROOT, Environment

DOCS = PROJECT_ROOT / "docs"

#: Every variable by section, with what it is for.
SETTINGS: dict[str, dict[str, str]] = {
    "Deployment": {
        "DEBUG": "Development mode. Off, the laptop defaults are refused where they would be unsafe.",
        "SECRET_KEY": "Signs sessions and tokens. Required with `DEBUG=0`: at least 32 random characters.",
        "ALLOWED_HOSTS": "Host names under which the web process answers. Required with `DEBUG=0`.",
        "CSRF_TRUSTED_ORIGINS": "Origins (`https://…`) whose forms are accepted, where a proxy changes the host.",
        "SECURE_SSL_REDIRECT": "Redirect plain HTTP to HTTPS (but not `/healthz`, `/readyz` and `/metrics`).",
        "BEHIND_TLS_PROXY": "Believe `X-Forwarded-Proto`. Only behind a proxy that always sets it.",
        "TIME_ZONE": "Zone in which the admin shows times. Schedules have zones of their own.",
        "LOG_LEVEL": "What is said at least.",
        "LOG_FORMAT": "`console` for people, `json` for one JSON object a line.",
        "EXTRA_APPS": "Django apps of yours, for instance with step tasks. Their folders must be on `PYTHONPATH`.",
        "DEMO": "Install the demo app, and seed it (`make run` does so unless `DEMO=0`).",
    },
    "Servers": {
        "DATABASE_URL": "Postgres. Given, `make run` embeds none.",
        "REDIS_URL": "Redis or Valkey, without eviction (`maxmemory-policy noeviction`). Given, none is embedded.",
        "DATA_DIR": "Folder of the embedded servers, generated secrets and the demo's files.",
        "DATABASE_POOL_SIZE": "Connections in the pool of a web process; 0: one persistent connection a thread.",
        "PORT": "Port of the web process under `make run`; a free one near it when the default is taken.",
        "FLOWER_PORT": "Port of Flower under `make run`, likewise.",
        "FLOWER_URL": "Where the admin's link to Flower leads; `http://127.0.0.1:FLOWER_PORT/` when empty.",
    },
    "Queues and steps": {
        "WORKFLOW_QUEUES": "Queues that exist; the first is the default. Workers choose theirs with `-Q`.",
        "WORKFLOW_TASKS": "Celery tasks that may be steps beside those marked with `@step_task`; patterns with `*`.",
        "WORKFLOW_HTTP_ALLOWED_NETWORKS": "Networks that are not public and that HTTP steps may reach all the same.",
        "WORKFLOW_HTTP_TIMEOUT_SECONDS": "How long an attempt of an HTTP step may take where the step does not say.",
        "WORKFLOW_MAX_PAYLOAD_BYTES": "Longest input, output or response that is kept, in bytes of JSON.",
        "WORKFLOW_MAX_FAN_OUT": "Most items of one `for_each`.",
        "WORKFLOW_MAX_CHILD_DEPTH": "How deep workflows may call workflows.",
        "WORKFLOW_CLEANUP_SECONDS": "What `finally` steps get to end when their execution was cancelled or is overdue.",
        "WORKFLOW_LOG_LINES": "Most lines that one attempt may keep with `context.log`.",
    },
    "The protocol": {
        "WORKFLOW_LEASE_SECONDS": "How long a worker holds a step without a sign of life.",
        "WORKFLOW_HEARTBEAT_SECONDS": "How often it gives one; at most half the lease.",
        "WORKFLOW_RESCUE_SECONDS": "How often workers look for steps whose lease has run out.",
        "WORKFLOW_SWEEP_SECONDS": "How often workers look for steps that were not sent or not claimed.",
        "WORKFLOW_STEP_NICENESS": "By how much the processes that run steps go behind others of the same host "
        "where processor time is short (nice); 0: not at all.",
        "WORKFLOW_REPORT_SECONDS": "How often a worker reports what it does and uses, and learns what is wanted of it.",
        "WORKFLOW_REDISPATCH_SECONDS": "How long a message may stay unclaimed before it is sent again (doubling).",
        "WORKFLOW_MAX_WORKER_DEATHS": "After so many lost workers a step fails as quarantined.",
        "WORKFLOW_IN_FLIGHT_PER_LEVEL": "Most unclaimed messages per queue and priority.",
        "WORKFLOW_SHUTDOWN_GRACE_SECONDS": "What running steps get to end when their worker stops; then: given back.",
    },
    "Schedules": {
        "SCHEDULE_PERIODIC_TASK_MIRROR": "Keep a django-celery-beat PeriodicTask for each schedule.",
        "SCHEDULE_CATCH_UP_WINDOW_SECONDS": "Late instants older than this are missed, where a schedule says nothing.",
        "SCHEDULE_CATCH_UP_LIMIT": "Most late instants of one schedule that one catch-up starts.",
        "SCHEDULE_LEDGER_DAYS": "Days for which ledger entries, and the figures of their audits, are kept.",
    },
    "Resources": {
        "WORKFLOW_HOST_CPU_HIGH": "Percent of all cores above which a host takes only priorities 0 to 3; 0: no limit.",
        "WORKFLOW_HOST_CPU_FULL": "Percent of all cores above which it takes nothing; 0: no limit.",
        "WORKFLOW_HOST_MEMORY_HIGH": "Percent of the memory above which it takes only priorities 0 to 3; 0: no limit.",
        "WORKFLOW_HOST_MEMORY_FULL": "Percent of the memory above which it takes nothing; 0: no limit.",
        "WORKFLOW_TARGET_UTILISATION": "Percent to which slots are to be used: `/api/queues/demand` reckons with it.",
        "WORKFLOW_RESOURCE_SAMPLE_SECONDS": "How often a measurement is kept for charts.",
    },
    "Operations": {
        "WORKFLOW_AGING_SECONDS": "Due work that waited so long gains one level of priority, and so on; 0: never.",
        "WORKFLOW_DEAD_LETTER_ALERTS": "Sizes at which a growing group of dead letters is reported.",
    },
    "Retention (0: for ever)": {
        "WORKFLOW_EXECUTIONS_KEPT_DAYS": "Days for which ended executions are kept, with all that belongs to them.",
        "WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS": "Days for which failed ones are kept.",
        "WORKFLOW_EXECUTIONS_KEPT_COUNT": "Ended executions that are kept per workflow, whatever their age.",
        "WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS": "Days after which an open dead letter is discarded as expired.",
        "WORKFLOW_DEAD_LETTERS_KEPT_DAYS": "Days for which decided dead letters and ended redrive jobs are kept.",
        "WORKFLOW_AUDIT_KEPT_DAYS": "Days for which audit entries are kept.",
        "WORKFLOW_NEWS_KEPT_DAYS": "Days after which news that nobody took are deleted.",
        "WORKFLOW_PROCESS_REPORTS_KEPT_DAYS": "Days for which workers and beats that are gone are listed.",
        "WORKFLOW_RESOURCE_SAMPLES_KEPT_DAYS": "Days for which measurements of workers and hosts are kept.",
    },
    "Monitoring": {
        "METRICS_TOKEN": "Whoever sends it as a bearer token may read `/metrics`; at least 16 characters.",
        "METRICS_ALLOWED_NETWORKS": "Networks that may read `/metrics` without a token, unless they come by a proxy.",
        "METRICS_WORKFLOWS": "So many workflows have metrics of their own; the others are one, called `other`.",
        "METRICS_CACHE_SECONDS": "How long a process answers `/metrics` with the same figures.",
    },
    "Notifications": {
        "EMAIL_HOST": "Mail server. Without one, mails are written to the log of the process that would send them.",
        "EMAIL_PORT": "Its port.",
        "EMAIL_USER": "User name there.",
        "EMAIL_PASSWORD": "Password there.",
        "EMAIL_USE_TLS": "Use STARTTLS.",
        "EMAIL_FROM": "Sender of all mails.",
        "NOTIFICATION_WEBHOOK_GIVE_UP_HOURS": "A webhook that has failed for so long is switched off, with notice.",
        "NOTIFICATIONS_KEPT_DAYS": "Days for which messages that were sent or given up are kept.",
    },
    "Triggers": {
        "WORKFLOW_ENCRYPTION_KEYS": "Fernet keys for secrets at rest, newest first; from `SECRET_KEY` when empty.",
        "WORKFLOW_MAX_EVENT_DEPTH": "How many events may follow from one another before the chain is cut.",
        "WORKFLOW_EVENTS_KEPT_DAYS": "Days for which events are kept.",
    },
    "Access": {
        "API_REQUESTS_PER_MINUTE": "Requests to the API per user or key and minute; 0 for no limit.",
        "API_REQUESTS_BURST": "How many of them may come at once.",
        "LOGIN_FAILURES_PER_MINUTE": "Failed logins per account and address; six times that per address; 0: no limit.",
    },
}

SETTINGS_HEAD = """# Settings

Everything that can be set comes from the environment, is read once at the start, and is typed: a bad value ends the
process with a line that names the variable, the value and the rule (secrets are never shown). Lists are separated by
commas. Durations are in seconds unless the name says otherwise. An empty variable counts as not set.

<!-- Made from scheduling_project/environment.py by tests/docs/pages.py; edit there. -->
"""
SETTINGS_TAIL = """## Read elsewhere

| variable | read by | meaning |
| --- | --- | --- |
| `ADMIN_USER`, `ADMIN_PASSWORD` | `make run`, `manage.py prepare` | The first administrator (`admin`). `make run` \
makes a password up, keeps it in `DATA_DIR` and prints it. |
| `FLOWER_BASIC_AUTH` | Flower | `user:password`, several separated by commas; `make run` sets it. |
| `FLOWER_…` | Flower | Every option of Flower. |
| `TEST_DATABASE_URL`, `TEST_REDIS_URL` | `make test` | Servers to test on instead of embedded ones. |
| `PYTHON`, `VENV`, `ARGS`, `COVERAGE` | `make` | The interpreter, the folder of the virtual environment, options for \
pytest, coverage on. |
"""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is not None and get_args(annotation) and get_origin(annotation) is not list:
        return " ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is list:
        return "list"
    return {bool: "0 or 1", int: "whole number", float: "number", Path: "path"}.get(annotation, "text")


def _limits(metadata: list[Any]) -> str:
    bounds = {name: getattr(limit, name) for limit in metadata for name in ("ge", "le") if hasattr(limit, name)}
    if not bounds:
        return ""
    low, high = (f"{bounds[name]:,}".replace(",", " ") if name in bounds else "" for name in ("ge", "le"))
    return f", {low} to {high}" if high else f", {low} or more"


def _default(name: str, value: Any) -> str:
    if value == LAPTOP_SECRET_KEY:
        return "one for laptops only"
    if isinstance(value, Path):
        return f"`{value.relative_to(PROJECT_ROOT)}`"
    if isinstance(value, bool):
        return f"`{int(value)}`"
    text = ",".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return f"`{text}`" if text else ""


def settings_page() -> str:
    """`docs/reference/settings.md`."""
    known = [name for section in SETTINGS.values() for name in section]
    fields = Environment.model_fields
    missing, unknown = set(fields) - set(known), set(known) - set(fields)
    if missing or unknown:
        raise LookupError(f"tests/docs/pages.py lacks {sorted(missing)} and has the unknown {sorted(unknown)}")
    parts = [SETTINGS_HEAD]
    for section, names in SETTINGS.items():
        rows = [f"## {section}\n", "| variable | value | default | meaning |", "| --- | --- | --- | --- |"]
        for name, meaning in names.items():
            field = fields[name]
            value = _type(field.annotation) + _limits(field.metadata)
            rows.append(f"| `{name}` | {value} | {_default(name, field.default)} | {meaning} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join([*parts, SETTINGS_TAIL])


KINDS = {
    "task": "Calls a Celery task that may be a step, with the members of `with` as keyword arguments. Its result is "
    "the step's output.",
    "http": "Makes one HTTP request. The output is `{status, headers, body}`, a JSON body decoded. `Idempotency-Key` "
    "is sent along.",
    "wait": "A durable sleep: seconds, or a number with `s`, `m`, `h` or `d`. Nothing runs meanwhile.",
    "approval": "Waits until somebody approves or rejects it; fails when it `expires`.",
    "workflow": "Starts another workflow and waits for its end; its output is the step's.",
    "emit": "Publishes an event, for triggers.",
}

DEFINITION_HEAD = """# Workflow definitions

A definition is one JSON object. It is checked as a whole when it is saved: its shape, cycles, tasks that do not exist
or cannot take these arguments, expressions that do not compile or read what cannot be there yet, patterns, queues.
Every problem is told at once, under its dotted path (`steps.load.needs.0`). What was published never changes: an edit
is a new version, and an execution ends with the version it began with.

```json
{"input": {"type": "object", "properties": {"day": {"type": "string"}}, "required": ["day"]},
 "steps": {
   "extract": {"task": "demo.tasks.extract", "with": {"day": "${{ input.day }}"}},
   "load": {"needs": ["extract"], "for_each": "${{ steps.extract.output.parts }}",
            "task": "demo.tasks.load", "with": {"part": "${{ item }}"},
            "retry": {"max_attempts": 5, "backoff": 2, "backoff_max": 60, "jitter": true}, "timeout": 30},
   "review": {"needs": ["load"], "approval": {"expires": "2d"},
              "when": {"steps": {"load": {"output": {"failed": [{"numeric": [">", 0]}]}}}}}},
 "output": "${{ steps.load.output.succeeded }}", "timeout": 3600}
```

Strings may hold [expressions](expressions.md), `${{ … }}`; `when` is a [pattern](patterns.md).

<!-- Made from execution/definition_schema.py by tests/docs/pages.py; edit there. -->
"""
MEMBERS = {
    "description": "For people.",
    "input": "A JSON Schema (2020-12) that every input must satisfy. Every input is an object.",
    "steps": "The steps by name.",
    "output": "What the execution returns; its expressions are evaluated at the end.",
    "timeout": "Seconds. Of a workflow: until the execution is cancelled. Of a step: per attempt.",
    "retry": "The retry policy of every step that states none, or of this step.",
    "queue": "Where its steps (or this step) run.",
    "priority": "0 (first) to 9, or `critical`, `high`, `normal`, `low`.",
    "concurrency": "How many executions with the same key run at once: `key` (with expressions), `limit` (1), and what "
    "a further one does: `on_conflict` `queue`, `skip` or `cancel_older`.",
    "on_success": "Steps that run after the main ones have succeeded.",
    "on_failure": "Steps that run after the main ones have failed.",
    "finally": "Steps that run last, however it ended.",
    "needs": "Steps that must have ended before.",
    "when": "A pattern over `{input, steps, execution}`; where it does not match, the step is skipped.",
    "for_each": "A list, or an expression that gives one: the step runs once for each `item` (see below).",
    "max_parallel": "How many items run at once.",
    "max_failed": 'How many items may fail with the step still succeeding: a number, or a part such as `"5%"`.',
    "on_item_error": "When more have failed: `continue` with the other items, or `stop`: no further one begins.",
    "on_error": "`fail` (the rest that needs it is skipped, a dead letter is made) or `continue`.",
    "pool": "Capacity shared by steps: `name` and `units` (1) that an attempt takes while it runs.",
    "limits": 'What its process may use: `{"memory": "500MB"}`; above it the attempt fails (`memory` in `retry_on`).',
    "rate": "How often attempts with the same `key` begin: `limit` in `per`, evenly; `burst` (1) of them at once.",
}
RETRY = {
    "max_attempts": ("3", "How often it is tried in all."),
    "backoff": ("2", "Seconds before the second attempt."),
    "factor": ("2", "Growth of the delay per further attempt."),
    "backoff_max": ("600", "Longest delay in seconds."),
    "jitter": ("true", "Full jitter: anywhere between 0 and the delay."),
    "retry_on": ("everything", "Failures that are retried."),
    "give_up_on": ("none", "Failures that are not."),
}
FAN_OUT = """## Fan-out

A step with `for_each` ends when its last item has ended. Its output is

```json
{"count": 3, "succeeded": 2, "failed": 1, "skipped": 0, "results": [{"loaded": 7}, null, {"loaded": 4}],
 "errors": [{"index": 1, "type": "BadInvoice", "message": "no amount"}]}
```

with the items' outputs in order (null where there is none; `results` is null and `truncated` true where they are
longer than `WORKFLOW_MAX_PAYLOAD_BYTES`) and why the first 100 failed. An item has failed when its last attempt has:
each is tried again by the step's `retry`, whatever becomes of the others.

| the step says | an item fails | the step, and the letters |
| --- | --- | --- |
| nothing | the others go on | fails when all have ended; a dead letter per failed item |
| `on_item_error: stop` | those with a worker end, the others are skipped | fails then; a letter per failed item |
| `max_failed: 5`, `"5%"` | the others go on | succeeds with at most so many; else fails, with one dead letter for all |
| both | as `stop`, once more have failed | as `max_failed` |
| `on_error: continue` | the others go on | succeeds, whatever failed; no letters |
| `on_error: continue` with either | as above | its failure is handled: what needs it goes on; no letters |

Who resumes the execution, or redrives the letters, runs again the items that failed and those that had been stopped,
again at most `max_parallel` at once; the others keep their outputs.

"""
DEFINITION_TAIL = """A policy that says only part of this takes the rest from the table. Failures are named by exception
class path (`OSError`, `httpx.ConnectError`; base classes count), by HTTP status (`503`) or class of them (`5xx`),
`timeout`, `connection` or `worker_death`.

**Worker deaths.** When the worker of an attempt is lost (killed, out of memory, its host gone), that is not the step's
failure: it is run again at once, uncharged, and after `WORKFLOW_MAX_WORKER_DEATHS` (3) such attempts it fails as
`quarantined`. A policy that names `worker_death` decides itself: in `retry_on` each death is charged, `max_attempts`
and the delays hold and the quarantine does not; in `give_up_on` the first one fails the step. A `retry_on` without it
changes nothing here. `on_worker_death` of the policy in force says which it is: `run_again`, `retry` or `give_up`.

**Precedence.** The first policy that anybody stated holds, whole: the step in the definition, then the schedule or
trigger or the call that started the execution, then the workflow, then the Celery task's own `autoretry_for` options,
then none (one attempt). The policy in force and its origin are shown with every execution. A delay that the step
(`self.retry(countdown=…)`) or the server (`Retry-After`) asks for comes before the policy's own.

## After the main steps

`on_success`, `on_failure` and `finally` hold steps like `steps` does, by names that occur once in the definition. When
the main steps have ended, the steps of `on_success` or `on_failure` run in the same execution, and then those of
`finally`. They may read every main step (null where it did not run), `execution.outcome` (`succeeded`, `failed` or
`cancelled`) and `execution.error` (`{step, type, message}`, null after success); `needs` names steps of the same
section. A section does not change how the execution ends, unless one of its steps fails for good without
`on_error: continue`: then the execution is `failed`, with a dead letter. `output` is made before the sections run.

`finally` also runs when the execution was cancelled or is past its deadline, provided that something of it had begun.
It then has `WORKFLOW_CLEANUP_SECONDS` of its own, and the execution ends as `cancelled` afterwards. Cancelling a second
time ends these steps too. When failed main steps are resumed, the sections follow anew.

## Calling workflows

`{"workflow": "name"}`, or `{"workflow": {"name": "…", "version": 3, "input": {…}}}`, starts an execution of that
workflow and waits for its end without holding a worker. Without `version` it is the one that is published when the
child starts. There is exactly one child per attempt: a retry of the step starts another. The child has the priority of
the step and tells where it comes from (`source.kind` is `child`, `source.id` the execution that called it).

The child's output is the step's output. A child that fails, fails the step (`child_failed` in retry policies); both
executions then have a dead letter. One that somebody cancelled is not started again (`child_cancelled`); the step's
`timeout` is the child's deadline (`timeout`). Whoever cancels an execution cancels what it called. A workflow that
calls itself, also by way of others, is refused, and so are more than `WORKFLOW_MAX_CHILD_DEPTH` levels. A workflow
that others call can neither be deleted nor renamed.

## What is checked when a definition is saved

Everything that can be known then, each mistake with its path and the rule: the shape; names; cycles; tasks, queues,
workflows and secrets that do not exist; durations, patterns and expressions that do not compile. Besides:

- An expression reads only what is there: members of the input schema (where it is closed), steps that have ended by
  then, `state` and `output` of a step, and of an output what the kind of step, or a `TypedDict` that its task returns,
  says that it has.
- Arguments fit the task: their names its signature, and literals its annotations (`int`, `list[str]`, `Literal`,
  `TypedDict`, unions of these; what is not plain takes everything). An expression that is a plain path fits too, where
  the input schema, or the annotation of the task that gives the output, tells its type.
- What a child is called with fits its input schema, literals and plain paths alike.
- A condition can hold: `when` is refused where no input that the schema allows, and no state that the steps can be in
  by then, would satisfy it. (A step that needs another never sees it `failed`, unless that one says
  `on_error: continue`.)

## Secrets

`${{ secrets.NAME }}` in the arguments of a task or http step is resolved by the worker that runs it: from what
`PUT /api/secrets/NAME` or `manage.py secrets set NAME` has kept (encrypted with `WORKFLOW_ENCRYPTION_KEYS`), else from
`WORKFLOW_SECRET_NAME` in the worker's environment. The value is taken out of outputs, errors, tracebacks, log lines and
dead letters, also where it stands in JSON, in a URL or as Base64; what a step derives from it in other ways is not
recognised. Nothing else may refer to secrets. When a definition is saved, a secret that neither is kept nor stands in
the environment of the process that checks is a mistake; when a step runs, the step fails.

## The schema

`GET /api/workflows/definition-schema` answers with the same JSON Schema (2020-12):

"""


def definition_page() -> str:
    """`docs/reference/definition.md`."""
    from execution.definition_schema import DEFINITION_SCHEMA, STEP_KINDS
    from execution.retry import POLICY_SCHEMA
    from execution.steps.kinds import KINDS as PERFORMED

    step = DEFINITION_SCHEMA["$defs"]["step"]["properties"]
    own = set(STEP_KINDS) | {"with"}
    # A kind is documented once something performs it.
    kinds = [kind for kind in STEP_KINDS if kind in PERFORMED or kind in {"wait", "approval"}]
    parts = [DEFINITION_HEAD, "## Members of a definition\n", _members(list(DEFINITION_SCHEMA["properties"]))]
    parts += ["## Members of a step\n", "One of the kinds:\n", "| kind | what it does |\n| --- | --- |"]
    parts += ["\n".join(f"| `{kind}` | {KINDS[kind]} |" for kind in kinds) + "\n", "and any of:\n"]
    parts += [_members([name for name in step if name not in own])]
    parts += [FAN_OUT + "## Retry policies\n", "| member | default | meaning |\n| --- | --- | --- |"]
    parts += ["\n".join(f"| `{name}` | {RETRY[name][0]} | {RETRY[name][1]} |" for name in POLICY_SCHEMA["properties"])]
    schema = json.dumps(DEFINITION_SCHEMA, indent=1, ensure_ascii=False)
    return "\n".join([*parts, "", DEFINITION_TAIL + f"```json\n{schema}\n```\n"])


def _members(names: list[str]) -> str:
    rows = [f"| `{name}` | {MEMBERS[name]} |" for name in names]
    return "\n".join(["| member | meaning |", "| --- | --- |", *rows]) + "\n"


METRICS_HEAD = """# Metrics

`GET /metrics` gives all figures in the text format of Prometheus, or in OpenMetrics when asked for it. Who may read it:
whoever sends `METRICS_TOKEN` as a bearer token, whoever comes directly from `METRICS_ALLOWED_NETWORKS` (loopback where
nothing is said; what an unknown proxy forwards does not count), and whoever may see workers and beats
(`execution.view_processreport`).

Figures come from Postgres, so every web process gives the same ones: scrape one of them. **Counters** are rows that
only grow: a scrape adds what is new since the last, so they survive pruning, restarts and any number of web processes,
and a scrape costs what is new, not what is kept. They end ten seconds ago (later commits would be missed otherwise),
and what happened while nobody scraped for more than an hour is not in them. **Gauges** are what is so now. A process
asks Postgres once in `METRICS_CACHE_SECONDS`, however often it is scraped.

Labels have few values each: never ids, hosts or inputs. The first `METRICS_WORKFLOWS` workflows have values of their
own, all others share `other`; a workflow keeps the value that it got first. Beside these there are the usual
`process_…` and `python_…` of the web process that answers.

`docker/prometheus/prometheus.yml` scrapes it, `docker/prometheus/alerts.yml` alerts on it and
`docker/grafana/dashboards/scheduling.json` shows it
([start both](../how-to/notifications.md#prometheus-and-grafana)).

<!-- Made from the METRICS of each app by tests/docs/pages.py; edit there. -->
"""


def metrics_page() -> str:
    """`docs/reference/metrics.md`."""
    from scheduling_project import metrics

    rows = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in (*metrics.METRICS, *metrics.SCRAPE):
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{name}` | {metric.kind} | {labels} | {metric.help} |")
    bounds = ", ".join(f"{bound:g}" for bound in metrics.SECONDS)
    tail = f"Histograms have buckets up to {bounds} seconds and beyond.\n"
    return "\n".join([METRICS_HEAD, *rows, "", tail])


PAGES = {
    "reference/metrics.md": metrics_page,
    "reference/settings.md": settings_page,
    "reference/definition.md": definition_page,
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduling_project.settings")
    import django

    django.setup()
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
