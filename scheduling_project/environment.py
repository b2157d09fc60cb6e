"""Every setting that comes from outside, typed, with a default that works on a laptop.

One class, read once by `settings.py`. A bad value stops the process at the start and names the
variable, the value and the rule. With ``DEBUG`` off the laptop defaults are refused where they
would be unsafe (``SECRET_KEY``, ``ALLOWED_HOSTS``).
"""

from __future__ import annotations

import importlib.util
import ipaddress
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from scheduling_project.embedded.discovery import announced

LAPTOP_SECRET_KEY = "laptop-only-secret-key-never-valid-with-debug-off-0123456789"  # noqa: S105 - refused below
PROJECT_ROOT = Path(__file__).resolve().parent.parent

CommaSeparated = Annotated[list[str], NoDecode]


class ImproperEnvironment(SystemExit):
    """The environment cannot be used; the message lists each variable, its value and the rule."""


class Environment(BaseSettings):
    """The process environment. Durations are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore", env_ignore_empty=True)

    # Deployment
    DEBUG: bool = True
    SECRET_KEY: str = LAPTOP_SECRET_KEY
    ALLOWED_HOSTS: CommaSeparated = ["localhost", "127.0.0.1", "[::1]"]
    CSRF_TRUSTED_ORIGINS: CommaSeparated = []
    SECURE_SSL_REDIRECT: bool = False
    BEHIND_TLS_PROXY: bool = False
    TIME_ZONE: str = "UTC"
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    LOG_FORMAT: Literal["console", "json"] = "console"
    EXTRA_APPS: CommaSeparated = []
    DEMO: bool = False

    # Servers
    DATABASE_URL: str = "postgresql://postgres@127.0.0.1:5432/scheduling"
    REDIS_URL: str = "redis://127.0.0.1:6379/0"
    DATA_DIR: Path = PROJECT_ROOT / ".data"
    DATABASE_POOL_SIZE: int = Field(default=0, ge=0, le=200)
    PORT: int = Field(default=8000, ge=1, le=65535)
    FLOWER_PORT: int = Field(default=5555, ge=1, le=65535)
    FLOWER_URL: str = ""

    # Queues: lanes for kinds of work; every worker serves the ones it is started with (-Q)
    WORKFLOW_QUEUES: CommaSeparated = ["default", "io"]
    WORKFLOW_TASKS: CommaSeparated = []
    WORKFLOW_HTTP_ALLOWED_NETWORKS: CommaSeparated = []
    WORKFLOW_HTTP_TIMEOUT_SECONDS: float = Field(default=30, gt=0, le=86_400)

    # The protocol (docs/guarantees.md)
    WORKFLOW_LEASE_SECONDS: float = Field(default=30, ge=0.5, le=3600)
    WORKFLOW_HEARTBEAT_SECONDS: float = Field(default=10, ge=0.1, le=1200)
    WORKFLOW_RESCUE_SECONDS: float = Field(default=5, ge=0.1, le=600)
    WORKFLOW_SWEEP_SECONDS: float = Field(default=1, ge=0.05, le=60)
    WORKFLOW_STEP_NICENESS: int = Field(default=5, ge=0, le=19)
    WORKFLOW_REPORT_SECONDS: float = Field(default=5, ge=0.1, le=5)
    WORKFLOW_REDISPATCH_SECONDS: float = Field(default=30, ge=0.5, le=600)
    WORKFLOW_MAX_WORKER_DEATHS: int = Field(default=3, ge=1, le=100)
    WORKFLOW_IN_FLIGHT_PER_LEVEL: int = Field(default=200, ge=1, le=1_000_000)
    WORKFLOW_SHUTDOWN_GRACE_SECONDS: float = Field(default=30, ge=0, le=3600)
    WORKFLOW_MAX_PAYLOAD_BYTES: int = Field(default=1_048_576, ge=1024, le=100_000_000)
    WORKFLOW_MAX_FAN_OUT: int = Field(default=10_000, ge=1, le=1_000_000)
    WORKFLOW_MAX_CHILD_DEPTH: int = Field(default=8, ge=1, le=50)
    WORKFLOW_CLEANUP_SECONDS: float = Field(default=3600, gt=0, le=604_800)
    WORKFLOW_LOG_LINES: int = Field(default=1000, ge=0, le=100_000)

    # Operations
    WORKFLOW_AGING_SECONDS: float = Field(default=300, ge=0, le=86_400)
    WORKFLOW_DEAD_LETTER_ALERTS: Annotated[list[int], NoDecode] = [10, 100, 1_000, 10_000]

    # Resources: percent of the host (or container) above which a worker takes urgent work only, or none; 0: no limit
    WORKFLOW_HOST_CPU_HIGH: float = Field(default=0, ge=0, le=100)
    WORKFLOW_HOST_CPU_FULL: float = Field(default=0, ge=0, le=100)
    WORKFLOW_HOST_MEMORY_HIGH: float = Field(default=0, ge=0, le=100)
    WORKFLOW_HOST_MEMORY_FULL: float = Field(default=0, ge=0, le=100)
    WORKFLOW_TARGET_UTILISATION: float = Field(default=75, ge=1, le=100)
    WORKFLOW_RESOURCE_SAMPLE_SECONDS: float = Field(default=30, ge=1, le=3600)

    # Retention: days; 0 keeps for ever
    WORKFLOW_EXECUTIONS_KEPT_DAYS: int = Field(default=30, ge=0, le=36_500)
    WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS: int = Field(default=90, ge=0, le=36_500)
    WORKFLOW_EXECUTIONS_KEPT_COUNT: int = Field(default=0, ge=0, le=100_000_000)
    WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS: int = Field(default=90, ge=0, le=36_500)
    WORKFLOW_DEAD_LETTERS_KEPT_DAYS: int = Field(default=90, ge=0, le=36_500)
    WORKFLOW_AUDIT_KEPT_DAYS: int = Field(default=365, ge=0, le=36_500)
    WORKFLOW_NEWS_KEPT_DAYS: int = Field(default=7, ge=1, le=36_500)
    WORKFLOW_PROCESS_REPORTS_KEPT_DAYS: int = Field(default=7, ge=1, le=36_500)
    WORKFLOW_RESOURCE_SAMPLES_KEPT_DAYS: int = Field(default=7, ge=1, le=36_500)

    # Triggers: Fernet keys for secrets at rest, newest first; derived from SECRET_KEY where there is none
    WORKFLOW_ENCRYPTION_KEYS: CommaSeparated = []
    WORKFLOW_MAX_EVENT_DEPTH: int = Field(default=16, ge=1, le=1000)
    WORKFLOW_EVENTS_KEPT_DAYS: int = Field(default=30, ge=1, le=3650)

    # Access: requests to the API per user or key (0: no limit), and failed logins per account and per address
    API_REQUESTS_PER_MINUTE: int = Field(default=30_000, ge=0, le=100_000_000)
    API_REQUESTS_BURST: int = Field(default=3_000, ge=1, le=1_000_000)
    LOGIN_FAILURES_PER_MINUTE: int = Field(default=10, ge=0, le=10_000)

    # Monitoring: who may read /metrics beside people with the permission, and how many workflows it tells apart
    METRICS_TOKEN: str = ""
    METRICS_ALLOWED_NETWORKS: CommaSeparated = ["127.0.0.0/8", "::1/128"]
    METRICS_WORKFLOWS: int = Field(default=50, ge=0, le=1000)
    METRICS_CACHE_SECONDS: float = Field(default=5, ge=0, le=300)

    # Notifications: without a mail server, mails are written to the log of the process that would send them
    EMAIL_HOST: str = ""
    EMAIL_PORT: int = Field(default=587, ge=1, le=65535)
    EMAIL_USER: str = ""
    EMAIL_PASSWORD: str = ""
    EMAIL_USE_TLS: bool = True
    EMAIL_FROM: str = "scheduling@localhost"
    NOTIFICATION_WEBHOOK_GIVE_UP_HOURS: float = Field(default=24, gt=0, le=720)
    NOTIFICATIONS_KEPT_DAYS: int = Field(default=30, ge=1, le=36_500)

    # Schedules
    SCHEDULE_PERIODIC_TASK_MIRROR: bool = True
    SCHEDULE_CATCH_UP_WINDOW_SECONDS: int = Field(default=86_400, ge=0)
    SCHEDULE_CATCH_UP_LIMIT: int = Field(default=100, ge=1, le=100_000)
    SCHEDULE_LEDGER_DAYS: int = Field(default=90, ge=1, le=36_500)

    @field_validator(
        "ALLOWED_HOSTS",
        "CSRF_TRUSTED_ORIGINS",
        "EXTRA_APPS",
        "WORKFLOW_QUEUES",
        "WORKFLOW_TASKS",
        "WORKFLOW_HTTP_ALLOWED_NETWORKS",
        "WORKFLOW_ENCRYPTION_KEYS",
        "WORKFLOW_DEAD_LETTER_ALERTS",
        "METRICS_ALLOWED_NETWORKS",
        mode="before",
    )
    @classmethod
    def split_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("TIME_ZONE")
    @classmethod
    def known_zone(cls, value: str) -> str:
        if value not in zoneinfo.available_timezones():
            raise ValueError("must be an IANA time zone such as Europe/Berlin")
        return value

    @field_validator("DATABASE_URL")
    @classmethod
    def postgres_url(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"postgres", "postgresql"}:
            raise ValueError("must be a postgresql:// URL; no other database can hold the protocol")
        _check_port(value)
        return value

    @field_validator("REDIS_URL")
    @classmethod
    def redis_url(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"redis", "rediss", "redis+socket", "unix"}:
            raise ValueError("must be a redis://, rediss:// or redis+socket:// URL")
        _check_port(value)
        return value

    @field_validator("EXTRA_APPS")
    @classmethod
    def importable_apps(cls, value: list[str]) -> list[str]:
        for name in value:
            package = name.split(".")[0]
            if not package.isidentifier() or importlib.util.find_spec(package) is None:
                raise ValueError(f"there is no Python package {package!r}: is the folder it lies in on PYTHONPATH?")
        return value

    @field_validator("WORKFLOW_QUEUES")
    @classmethod
    def queue_names(cls, value: list[str]) -> list[str]:
        if not value or any(not name.replace("-", "").replace("_", "").isalnum() for name in value):
            raise ValueError("must be one or more names of letters, digits, - and _, separated by commas")
        if len(set(value)) != len(value):
            raise ValueError("must not name a queue twice")
        return value

    @field_validator("WORKFLOW_DEAD_LETTER_ALERTS")
    @classmethod
    def growing_sizes(cls, value: list[int]) -> list[int]:
        if any(size < 1 for size in value) or sorted(set(value)) != value:
            raise ValueError("must be whole numbers from 1 on, each larger than the one before")
        return value

    @field_validator("METRICS_TOKEN")
    @classmethod
    def long_token(cls, value: str) -> str:
        if value and len(value) < 16:
            raise ValueError("must have at least 16 characters")
        return value

    @field_validator("WORKFLOW_HTTP_ALLOWED_NETWORKS", "METRICS_ALLOWED_NETWORKS")
    @classmethod
    def networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ipaddress.ip_network(network)
        return value

    @field_validator("WORKFLOW_ENCRYPTION_KEYS")
    @classmethod
    def fernet_keys(cls, value: list[str]) -> list[str]:
        if not value:
            return value
        from cryptography.fernet import Fernet  # several MB, which only who has keys needs

        for position, key in enumerate(value, start=1):
            try:
                Fernet(key)
            except ValueError:
                raise ValueError(f"key {position} is not a Fernet key (32 random bytes in URL-safe base64)") from None
        return value

    @model_validator(mode="after")
    def heartbeat_fits_lease(self) -> Environment:
        if self.WORKFLOW_HEARTBEAT_SECONDS * 2 > self.WORKFLOW_LEASE_SECONDS:
            raise ValueError(
                f"WORKFLOW_HEARTBEAT_SECONDS ({self.WORKFLOW_HEARTBEAT_SECONDS:g}) must be at most half of "
                f"WORKFLOW_LEASE_SECONDS ({self.WORKFLOW_LEASE_SECONDS:g}), or one lost heartbeat loses the lease"
            )
        return self

    @model_validator(mode="after")
    def safe_in_production(self) -> Environment:
        if not self.DEBUG and (self.SECRET_KEY == LAPTOP_SECRET_KEY or len(self.SECRET_KEY) < 32):
            raise ValueError("SECRET_KEY must be set to at least 32 random characters when DEBUG is off")
        if not self.DEBUG and ("ALLOWED_HOSTS" not in self.model_fields_set or not self.ALLOWED_HOSTS):
            raise ValueError("ALLOWED_HOSTS must be set when DEBUG is off")
        return self

    @classmethod
    def read(cls) -> Environment:
        """The process environment as typed values.

        Where no server is named, those that ``manage.py up`` runs for DATA_DIR at this moment are found, so
        that a ``celery -A scheduling_project worker`` beside it needs no variables.

        Raises:
            ImproperEnvironment: with one line per bad variable.
        """
        try:
            named = cls()
            found = announced(named.DATA_DIR)
            missing = {name: url for name, url in found.items() if name not in named.model_fields_set}
            return cls(**missing) if missing else named  # type: ignore[arg-type]
        except ValidationError as error:
            raise ImproperEnvironment(_explain(error)) from None


def _check_port(url: str) -> None:
    """Refuse a URL whose host or port cannot be read; the message must not show it, it may hold a password."""
    try:
        parts = urlsplit(url)
        readable = parts.port is None or parts.port > 0
    except ValueError:
        readable = False
    if not readable:
        raise ValueError("has a host or port that cannot be read; special characters in it must be %-encoded")


SECRET_VARIABLES = frozenset(
    {"SECRET_KEY", "WORKFLOW_ENCRYPTION_KEYS", "DATABASE_URL", "REDIS_URL", "METRICS_TOKEN", "EMAIL_PASSWORD"}
)


def _explain(error: ValidationError) -> str:
    lines = ["The environment cannot be used:"]
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        shown = "" if not name or name in SECRET_VARIABLES else f"={problem['input']!r}"
        lines.append(f"  {name}{shown}: {message}" if name else f"  {message}")
    return "\n".join(lines)
