"""What every delivery needs and seldom changes, in memory: endpoints with their secrets, API keys, the trigger index.

The database renews one version with every change (migration 0002). Doors look at it at most every half second;
`triggers.ingest` reads it in the statement that stores the event, so that an event is always matched against the
triggers in force at that moment, in every process. After a change only the rows that differ are compiled again.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from execution import engine, patterns
from execution.expressions import ExpressionError, Roots, Template, compile_template
from execution.models import Workflow, WorkflowVersion
from execution.patterns import PatternError
from scheduling_project.common import vault
from scheduling_project.common.logs import get_logger
from triggers.arrivals import instant_text
from triggers.flow_specs import Batch, Debounce, Throttling
from triggers.matching import Rule, TriggerIndex
from triggers.models import ApiKey, EndpointSecret, Trigger, WebhookEndpoint
from triggers.payloads import Reading
from triggers.scopes import verbs_of

log = get_logger(__name__)

ROOTS: Final = Roots(frozenset({"event", "events", "trigger"}))
MAX_AGE: Final = 0.5  # seconds

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A webhook endpoint, ready for its deliveries. `secrets` with the instant from which each is void."""

    id: UUID
    slug: str
    state: str
    scheme: str
    config: Mapping[str, Any]
    secrets: tuple[tuple[str, datetime | None], ...]
    require_api_key: bool
    methods: tuple[str, ...]
    networks: tuple[Network, ...]
    max_body_bytes: int
    rate_per_minute: int | None
    burst: int
    caller_rate_per_minute: int | None
    fails_open: bool
    reading: Reading
    credential_headers: frozenset[str]
    dedup_window: int | None
    response_mode: str

    def valid_secrets(self, now: datetime) -> list[str]:
        """The secrets that may sign at `now`, newest first."""
        return [secret for secret, expires_at in self.secrets if expires_at is None or expires_at > now]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key that has not been revoked. Whether its user is active is asked when it is used."""

    id: UUID
    name: str
    prefix: str
    user_id: int
    scopes: frozenset[str]
    networks: tuple[Network, ...]
    expires_at: datetime | None

    @property
    def actor(self) -> str:
        return f"key:{self.prefix}"

    @property
    def verbs(self) -> frozenset[str]:
        """What the key may be used for, beside what its user may."""
        return verbs_of(self.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activator:
    """A trigger, compiled: what becomes of an event that matches."""

    id: UUID
    name: str
    version: WorkflowVersion | None
    input: Template | None
    priority: int | None
    queue: str
    retry_policy: Mapping[str, Any] | None
    timeout: float | None
    concurrency_key: Template | None
    throttle: Throttling | None
    debounce: Debounce | None
    batch: Batch | None
    max_activations: int | None
    start_at: datetime | None
    end_at: datetime | None
    authentication: Mapping[str, Any]

    @property
    def is_plain(self) -> bool:
        """Whether nothing is counted or waited for: what becomes of an event needs no question to the database."""
        return self.throttle is None and self.debounce is None and self.batch is None and self.max_activations is None

    def why_not_due(self, now: datetime) -> str | None:
        """Why it takes no events at `now`, None between its start and its end."""
        if self.start_at is not None and now < self.start_at:
            return f"begins at {instant_text(self.start_at)}"
        if self.end_at is not None and self.end_at <= now:
            return f"ended at {instant_text(self.end_at)}"
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it at one version. `watching`: whether any trigger wants news of executions."""

    version: UUID | None
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    slugs: Mapping[UUID, str] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    index: TriggerIndex = field(default_factory=lambda: TriggerIndex(()))
    watching: bool = False


_lock = threading.Lock()
_snapshot: Snapshot | None = None
_checked_at = float("-inf")
_clock: tuple[datetime, float] | None = None
_compiled: dict[UUID, tuple[Any, Rule, bool]] = {}


_VERSION_AND_CLOCK: Final = """
SELECT (SELECT version FROM triggers_catalog WHERE id = 1) AS version, clock_timestamp() AS instant
"""


def current(*, using: str = "default", max_age: float = MAX_AGE) -> Snapshot:
    """The catalog, at most `max_age` seconds old.

    Raises:
        django.db.DatabaseError: Postgres is away and what is in memory is older.
    """
    global _checked_at, _clock
    known = _snapshot
    if known is not None and time.monotonic() - _checked_at < max_age:
        return known
    started = time.monotonic()
    row = engine.fetch_one(_VERSION_AND_CLOCK, {}, using=using)
    assert row is not None
    _clock = row.instant.astimezone(UTC), time.monotonic()
    found = at_version(row.version, using=using)
    _checked_at = started
    return found


def moment(*, using: str = "default") -> datetime:
    """Postgres's clock without a question to Postgres: its last answer, carried on by this machine's monotonic clock.

    At most `MAX_AGE` old, and never ahead of Postgres but for what the two drift apart in that time, since the answer
    is counted from when it was here. It saves the door a round trip for every delivery.
    """
    current(using=using)
    assert _clock is not None, "the catalog is never loaded without it"
    instant, at = _clock
    return instant + timedelta(seconds=time.monotonic() - at)


def at_version(version: UUID | None, *, using: str = "default") -> Snapshot:
    """The catalog of this version or a later one."""
    global _snapshot
    known = _snapshot
    if known is not None and known.version == version:
        return known
    with _lock:
        known = _snapshot
        if known is None or known.version != version:
            # The version is read before the content: content that is newer than its label is read once more.
            _snapshot = known = _load(using)
    return known


def expire(*, using: str = "default") -> None:
    """Look at the version again at the next use; called by whoever has changed something in this process."""
    expire_now()
    transaction.on_commit(expire_now, using=using)


def expire_now() -> None:
    """Look at the version again at the next use, whatever becomes of the open transaction."""
    global _checked_at
    _checked_at = float("-inf")


def _load(using: str) -> Snapshot:
    row = engine.fetch_one("SELECT version FROM triggers_catalog WHERE id = 1", {}, using=using)
    endpoints = _endpoints(using)
    rules, watching = _rules(using)
    return Snapshot(
        version=None if row is None else row.version,
        endpoints=endpoints,
        slugs={endpoint.id: endpoint.slug for endpoint in endpoints.values()},
        keys=_keys(using),
        index=TriggerIndex(rules),
        watching=watching,
    )


def _endpoints(using: str) -> dict[str, Endpoint]:
    secrets: dict[UUID, list[tuple[str, datetime | None]]] = {}
    for row in EndpointSecret.objects.using(using).order_by("-id"):
        try:
            secrets.setdefault(row.endpoint_id, []).append((vault.decrypt(row.ciphertext), row.expires_at))
        except vault.VaultError:
            log.error("catalog.secret_unreadable", endpoint_id=str(row.endpoint_id), secret_id=str(row.pk))
    return {
        row.token: Endpoint(
            id=row.pk,
            slug=row.slug,
            state=row.state,
            scheme=row.scheme,
            config=row.scheme_config,
            secrets=tuple(secrets.get(row.pk, ())),
            require_api_key=row.require_api_key,
            methods=tuple(row.methods or ("POST",)),
            networks=networks(row.allowed_networks),
            max_body_bytes=row.max_body_bytes,
            rate_per_minute=row.rate_per_minute,
            burst=row.burst or max(1, (row.rate_per_minute or 0) // 10),
            caller_rate_per_minute=row.caller_rate_per_minute,
            fails_open=row.when_redis_is_away == "open",
            reading=Reading(row.slug, row.scheme, row.type_from, row.dedup, row.dedup_path),
            credential_headers=frozenset(
                str(row.scheme_config[name]).lower() for name in ("header",) if name in row.scheme_config
            ),
            dedup_window=row.dedup_window,
            response_mode=row.response_mode,
        )
        for row in WebhookEndpoint.objects.using(using).all()
    }


def _keys(using: str) -> dict[str, Key]:
    return {
        row.digest: Key(
            id=row.pk,
            name=row.name,
            prefix=row.prefix,
            user_id=row.user_id,
            scopes=frozenset(row.scopes),
            networks=networks(row.allowed_networks),
            expires_at=row.expires_at,
        )
        for row in ApiKey.objects.using(using).filter(revoked_at__isnull=True)
    }


def networks(texts: list[str]) -> tuple[Network, ...]:
    """CIDR blocks as values.

    >>> networks(["10.0.0.0/8"])
    (IPv4Network('10.0.0.0/8'),)
    """
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


# xmin and ctid together name one version of a row, however it was written. The workflow's are part of it, since a
# trigger starts what its workflow has published.
_TAGS = """
SELECT t.id, t.watches, array[t.xmin::text, t.ctid::text, w.xmin::text, w.ctid::text] AS tag
FROM triggers_trigger t JOIN execution_workflow w ON w.id = t.workflow_id WHERE t.enabled ORDER BY t.id
"""


def _rules(using: str) -> tuple[list[Rule], bool]:
    rows = engine.fetch_all(_TAGS, {}, using=using)
    stale = [row.id for row in rows if row.id not in _compiled or _compiled[row.id][0] != row.tag]
    fresh: dict[UUID, Rule] = {}
    if stale:
        # Every trigger of a workflow shares its version; the definition is read when it is first compiled.
        triggers = list(Trigger.objects.using(using).filter(pk__in=stale).defer("description", "labels", "metadata"))
        versions = _versions({trigger.workflow_id for trigger in triggers}, using)
        for trigger in triggers:
            try:
                fresh[trigger.pk] = compile_rule(trigger, versions.get(trigger.workflow_id))
            except (PatternError, ExpressionError, KeyError, TypeError, ValueError) as error:
                log.error("catalog.trigger_unusable", trigger_id=str(trigger.pk), error=str(error))
    tags = {row.id: row for row in rows}
    for trigger_id in [known for known in _compiled if known not in tags]:
        del _compiled[trigger_id]
    for trigger_id, rule in fresh.items():
        _compiled[trigger_id] = (tags[trigger_id].tag, rule, tags[trigger_id].watches)
    usable = [row for row in rows if row.id in _compiled and _compiled[row.id][0] == row.tag]
    return [_compiled[row.id][1] for row in usable], any(row.watches for row in usable)


def _versions(workflow_ids: set[UUID], using: str) -> dict[UUID, WorkflowVersion]:
    workflows = Workflow.objects.using(using).select_related("published").defer("published__definition")
    found: dict[UUID, WorkflowVersion] = {}
    for workflow in workflows.filter(pk__in=workflow_ids, published__isnull=False):
        assert workflow.published is not None
        workflow.published.workflow = workflow
        found[workflow.pk] = workflow.published
    return found


def compile_rule(trigger: Trigger, version: WorkflowVersion | None) -> Rule:
    """A trigger as the index and activation use it.

    Raises:
        PatternError, ExpressionError, ValueError: the row holds what lifecycle would have refused.
    """
    activator = Activator(
        id=trigger.pk,
        name=trigger.name,
        version=version,
        input=None if trigger.input is None else compile_template(trigger.input, path="$.input", roots=ROOTS),
        priority=trigger.priority,
        queue=trigger.queue,
        retry_policy=trigger.retry_policy,
        timeout=trigger.timeout,
        concurrency_key=_text_template(trigger.concurrency_key, "$.concurrency_key"),
        throttle=None if trigger.throttle is None else Throttling.of(trigger.throttle),
        debounce=None if trigger.debounce is None else Debounce.of(trigger.debounce),
        batch=None if trigger.batch is None else Batch.of(trigger.batch),
        max_activations=trigger.max_activations,
        start_at=trigger.start_at,
        end_at=trigger.end_at,
        authentication=trigger.authentication,
    )
    return Rule(
        id=trigger.pk,
        endpoint_id=trigger.endpoint_id,
        types=tuple(trigger.event_types),
        pattern=patterns.compile(trigger.pattern) if trigger.pattern else _ANYTHING,
        value=activator,
    )


def load_rule(trigger_id: UUID, *, using: str = "default") -> Rule | None:
    """One trigger, compiled from its row, whether enabled or not; None when it is gone."""
    trigger = Trigger.objects.using(using).filter(pk=trigger_id).first()
    if trigger is None:
        return None
    return compile_rule(trigger, _versions({trigger.workflow_id}, using).get(trigger.workflow_id))


def _text_template(text: str, path: str) -> Template | None:
    return compile_template(text, path=path, roots=ROOTS) if text else None


#: The pattern language has no empty pattern; every event has a type.
_ANYTHING: Final = patterns.compile({"type": [{"exists": True}]})
