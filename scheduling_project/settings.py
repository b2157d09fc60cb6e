"""Django and Celery settings. Values from outside come through `environment.py`, typed and checked."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dj_database_url
from kombu import Queue

import schedules.timing.zones  # noqa: F401 - the pinned tzdata becomes the only source of zones before anybody lists them
from scheduling_project.common.logs import logging_config
from scheduling_project.process_role import is_beat, is_lean
from scheduling_project.unfold import UNFOLD as UNFOLD

if TYPE_CHECKING or not is_lean(sys.argv):
    from scheduling_project.environment import Environment

    env = Environment.read()
else:
    from scheduling_project import lean_environment

    env = lean_environment.read()

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = env.DEBUG
SECRET_KEY = env.SECRET_KEY
ALLOWED_HOSTS = env.ALLOWED_HOSTS
CSRF_TRUSTED_ORIGINS = env.CSRF_TRUSTED_ORIGINS
DEMO = env.DEMO
DATA_DIR = env.DATA_DIR
EXTRA_APPS = env.EXTRA_APPS

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "scheduling_project",
    "execution",
    "schedules",
    "triggers",
    *(["scheduling_project.demo"] if env.DEMO else []),
    *env.EXTRA_APPS,
]

if is_beat(sys.argv):
    # A beat serves no pages. Without the apps that are for pages, and so without every app's admin module, nothing
    # loads what stands behind them. Their few models (login tokens, the admin's log) are nothing that a beat refers to.
    _pages = {"unfold", "unfold.contrib.filters", "django.contrib.admin", "django.contrib.messages"}
    _pages |= {"django.contrib.staticfiles", "rest_framework", "rest_framework_simplejwt.token_blacklist"}
    _pages |= {"django_filters", "drf_spectacular", "drf_spectacular_sidecar"}
    INSTALLED_APPS = [name for name in INSTALLED_APPS if name not in _pages]

MIDDLEWARE = [
    "scheduling_project.request_ids.request_id",
    "django.middleware.security.SecurityMiddleware",
    "scheduling_project.headers.content_policy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "scheduling_project.urls"
WSGI_APPLICATION = "scheduling_project.wsgi.application"
ASGI_APPLICATION = "scheduling_project.asgi.application"
APPEND_SLASH = False  # the API accepts both spellings itself; a redirect would lose a POST body

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "scheduling_project" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# Postgres. "default" serves requests and the users' step code; "engine" is the protocol's own connection with
# short statement and lock timeouts, so that neither can hold up the other (docs/architecture.md).
_database: dict[str, Any] = dict(dj_database_url.parse(env.DATABASE_URL, conn_max_age=600, conn_health_checks=True))
_options: dict[str, Any] = _database.get("OPTIONS", {})
_pool: dict[str, Any] = {"min_size": 1, "max_size": env.DATABASE_POOL_SIZE, "timeout": 5}
DATABASES = {
    "default": {
        **_database,
        # A pool and persistent connections exclude each other; only web processes ask for a pool.
        **({"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": False} if env.DATABASE_POOL_SIZE else {}),
        "OPTIONS": {
            "connect_timeout": 5,
            **_options,
            "application_name": "scheduling",
            # High enough never to be reached: the driver prepares only what asks for it, which is the engine's
            # constant statements (execution/engine.py), and never the ORM's, whose texts vary.
            "prepare_threshold": 1_000_000_000,
            "options": f"{_options.get('options', '')} -c jit=off".strip(),
            **({"pool": _pool} if env.DATABASE_POOL_SIZE else {}),
        },
    },
    "engine": {
        **_database,
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": False,
        "OPTIONS": {
            "connect_timeout": 5,
            **_options,
            "application_name": "scheduling-engine",
            # Django turns prepared statements off unless told otherwise. Planning the engine's statements costs
            # several times what running them does, and compiling them (jit) a hundred times. Each finds its rows by an
            # index; a plan made while a table was small would read all of it, and be kept as the table grows.
            "prepare_threshold": 1,
            "options": "-c statement_timeout=5s -c lock_timeout=2s -c idle_in_transaction_session_timeout=30s"
            " -c jit=off -c enable_seqscan=off",
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Redis is a courier: short timeouts, and nothing in it that Postgres does not know.
REDIS_URL = env.REDIS_URL

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = env.TIME_ZONE
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = env.DATA_DIR / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SESSION_COOKIE_HTTPONLY = True
SECURE_SSL_REDIRECT = env.SECURE_SSL_REDIRECT
# An orchestrator and Prometheus ask the process itself, without TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz/?$", r"^readyz/?$", r"^metrics/?$"]
SECURE_HSTS_SECONDS = 0 if DEBUG else 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = not DEBUG
SILENCED_SYSTEM_CHECKS = ["security.W021"]  # HSTS preloading is a promise for a whole domain: not ours to make
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.BEHIND_TLS_PROXY else None
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"

LOGGING = logging_config(level=env.LOG_LEVEL, form=env.LOG_FORMAT)

# ── Django REST framework ──
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "triggers.auth.rest.ApiKeyAuthentication",  # first: it leaves other bearer tokens to the next
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["scheduling_project.common.permissions.MayDoIt"],
    "DEFAULT_THROTTLE_CLASSES": ["scheduling_project.throttling.ApiRate"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["scheduling_project.common.parsers.StrictJSONParser"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "scheduling_project.common.pagination.NewestFirstPagination",
    "DEFAULT_SCHEMA_CLASS": "scheduling_project.common.openapi.Operations",
    "EXCEPTION_HANDLER": "scheduling_project.common.problems.exception_handler",
    "DATETIME_FORMAT": "iso-8601",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "URL_FORMAT_OVERRIDE": None,
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=30),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=7),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "UPDATE_LAST_LOGIN": False,
    "CHECK_REVOKE_TOKEN": True,  # another password ends all tokens
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Scheduling API",
    "DESCRIPTION": "Schedules, triggers, workflows, executions and dead letters.",
    "VERSION": "0.1.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/",
    "ENUM_NAME_OVERRIDES": {
        "ProcessStatus": [(name, name) for name in ("active", "paused", "draining", "drained", "stopped", "lost")],
        "QueueStatus": [(name, name) for name in ("active", "paused", "draining", "drained")],
        "ExecutionState": "execution.states.ExecutionState",
        "StepState": "execution.states.StepState",
        "AttemptState": "execution.states.AttemptState",
        "DeadLetterState": "execution.states.DeadLetterState",
        "WaitingFor": "execution.states.WaitingFor",
        "ChangeKind": [(name, name) for name in ("added", "removed", "changed")],
        "LetterEventKind": "execution.letter_story.KIND_CHOICES",
        "NotificationKind": "execution.notifications.kinds.NotificationKind",
        "NotificationState": "execution.notifications.kinds.NotificationState",
        "NotificationChannel": "execution.notifications.kinds.Channel",
        "FireOutcome": "schedules.states.FireOutcome",
        "FireReason": "schedules.states.FireReason",
        "OnResume": "schedules.states.OnResume",
        "ActivationState": "triggers.states.ActivationState",
        "EndpointState": "triggers.states.EndpointState",
        "DeliveryOutcome": "triggers.states.DeliveryOutcome",
        "BackfillState": "schedules.states.BackfillState",
        "ScheduleState": [(name, name) for name in ("active", "paused", "finished", "error", "stopped")],
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "scheduling_project.common.openapi.describe_errors",
        "scheduling_project.api_description.document.describe",
    ],
}

# ── Celery ──
# Each line is there because its absence lost, doubled or delayed work (docs/guarantees.md).
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED = False
CELERY_TASK_QUEUES = [Queue(name, routing_key=name) for name in env.WORKFLOW_QUEUES]
CELERY_TASK_DEFAULT_QUEUE = env.WORKFLOW_QUEUES[0]
CELERY_TASK_DEFAULT_PRIORITY = 6  # without one a message gets 0, the most urgent
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_ACKS_LATE = False  # with late acks a Redis restart under full slots leaves a worker alive and deaf
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SEND_SENT_EVENT = True
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_WORKER_CONSUMER = "execution.reconnecting:SteadyConsumer"  # back within seconds of the broker
CELERY_WORKER_DISABLE_PREFETCH = True  # with a prefetch of one a busy worker hoards hints that an idle one lacks
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = True
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = env.WORKFLOW_SHUTDOWN_GRACE_SECONDS
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_TASK_PUBLISH_RETRY = False  # a request never waits for Redis; the sweep sends what was not sent
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "priority_steps": list(range(10)),
    "queue_order_strategy": "priority",
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "health_check_interval": 10,
    "visibility_timeout": 300,
    "socket_keepalive": True,
}
CELERY_ENABLE_UTC = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "schedules.beat.WorkflowScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1  # the fallback where LISTEN is not to be had
DJANGO_CELERY_BEAT_TZ_AWARE = True

# ── The engine ──
WORKFLOW_ENGINE_DATABASE = "engine"
WORKFLOW_QUEUES = env.WORKFLOW_QUEUES
WORKFLOW_TASKS = env.WORKFLOW_TASKS
WORKFLOW_HTTP_ALLOWED_NETWORKS = env.WORKFLOW_HTTP_ALLOWED_NETWORKS
WORKFLOW_HTTP_TIMEOUT_SECONDS = env.WORKFLOW_HTTP_TIMEOUT_SECONDS
WORKFLOW_LEASE_SECONDS = env.WORKFLOW_LEASE_SECONDS
WORKFLOW_HEARTBEAT_SECONDS = env.WORKFLOW_HEARTBEAT_SECONDS
WORKFLOW_RESCUE_SECONDS = env.WORKFLOW_RESCUE_SECONDS
WORKFLOW_SWEEP_SECONDS = env.WORKFLOW_SWEEP_SECONDS
WORKFLOW_REDISPATCH_SECONDS = env.WORKFLOW_REDISPATCH_SECONDS
WORKFLOW_MAX_WORKER_DEATHS = env.WORKFLOW_MAX_WORKER_DEATHS
WORKFLOW_SHUTDOWN_GRACE_SECONDS = env.WORKFLOW_SHUTDOWN_GRACE_SECONDS
WORKFLOW_IN_FLIGHT_PER_LEVEL = env.WORKFLOW_IN_FLIGHT_PER_LEVEL
WORKFLOW_MAX_PAYLOAD_BYTES = env.WORKFLOW_MAX_PAYLOAD_BYTES
WORKFLOW_MAX_FAN_OUT = env.WORKFLOW_MAX_FAN_OUT
WORKFLOW_MAX_CHILD_DEPTH = env.WORKFLOW_MAX_CHILD_DEPTH
WORKFLOW_CLEANUP_SECONDS = env.WORKFLOW_CLEANUP_SECONDS
WORKFLOW_LOG_LINES = env.WORKFLOW_LOG_LINES
WORKFLOW_AGING_SECONDS = env.WORKFLOW_AGING_SECONDS
WORKFLOW_DEAD_LETTER_ALERTS = env.WORKFLOW_DEAD_LETTER_ALERTS
WORKFLOW_EXECUTIONS_KEPT_DAYS = env.WORKFLOW_EXECUTIONS_KEPT_DAYS
WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS = env.WORKFLOW_FAILED_EXECUTIONS_KEPT_DAYS
WORKFLOW_EXECUTIONS_KEPT_COUNT = env.WORKFLOW_EXECUTIONS_KEPT_COUNT
WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS = env.WORKFLOW_DEAD_LETTERS_EXPIRE_DAYS
WORKFLOW_DEAD_LETTERS_KEPT_DAYS = env.WORKFLOW_DEAD_LETTERS_KEPT_DAYS
WORKFLOW_AUDIT_KEPT_DAYS = env.WORKFLOW_AUDIT_KEPT_DAYS
WORKFLOW_NEWS_KEPT_DAYS = env.WORKFLOW_NEWS_KEPT_DAYS
WORKFLOW_PROCESS_REPORTS_KEPT_DAYS = env.WORKFLOW_PROCESS_REPORTS_KEPT_DAYS
WORKFLOW_RESOURCE_SAMPLES_KEPT_DAYS = env.WORKFLOW_RESOURCE_SAMPLES_KEPT_DAYS
WORKFLOW_STEP_NICENESS = env.WORKFLOW_STEP_NICENESS
WORKFLOW_REPORT_SECONDS = env.WORKFLOW_REPORT_SECONDS
WORKFLOW_HOST_CPU_HIGH = env.WORKFLOW_HOST_CPU_HIGH
WORKFLOW_HOST_CPU_FULL = env.WORKFLOW_HOST_CPU_FULL
WORKFLOW_HOST_MEMORY_HIGH = env.WORKFLOW_HOST_MEMORY_HIGH
WORKFLOW_HOST_MEMORY_FULL = env.WORKFLOW_HOST_MEMORY_FULL
WORKFLOW_TARGET_UTILISATION = env.WORKFLOW_TARGET_UTILISATION
WORKFLOW_RESOURCE_SAMPLE_SECONDS = env.WORKFLOW_RESOURCE_SAMPLE_SECONDS
WORKFLOW_ENCRYPTION_KEYS = env.WORKFLOW_ENCRYPTION_KEYS
WORKFLOW_MAX_EVENT_DEPTH = env.WORKFLOW_MAX_EVENT_DEPTH
WORKFLOW_EVENTS_KEPT_DAYS = env.WORKFLOW_EVENTS_KEPT_DAYS
# PeriodicTasks that every installation has, besides those of `schedules.periodic_tasks`: name and seconds between runs
HOUSEKEEPING_TASKS: dict[str, int] = {"triggers.flush": 1, "triggers.prune": 3600, "execution.prune": 3600}
# Those of them that a beat sends only while something waits for them: a function that says so, given a database alias.
HOUSEKEEPING_ON_DEMAND: dict[str, str] = {"triggers.flush": "triggers.waiting.is_anything_waiting"}
SCHEDULE_PERIODIC_TASK_MIRROR = env.SCHEDULE_PERIODIC_TASK_MIRROR
SCHEDULE_CATCH_UP_WINDOW_SECONDS = env.SCHEDULE_CATCH_UP_WINDOW_SECONDS
SCHEDULE_CATCH_UP_LIMIT = env.SCHEDULE_CATCH_UP_LIMIT
SCHEDULE_LEDGER_DAYS = env.SCHEDULE_LEDGER_DAYS

# ── Access ──
API_REQUESTS_PER_MINUTE = env.API_REQUESTS_PER_MINUTE
API_REQUESTS_BURST = env.API_REQUESTS_BURST
LOGIN_FAILURES_PER_MINUTE = env.LOGIN_FAILURES_PER_MINUTE

# ── Monitoring ──
METRICS_TOKEN = env.METRICS_TOKEN
METRICS_ALLOWED_NETWORKS = env.METRICS_ALLOWED_NETWORKS
METRICS_WORKFLOWS = env.METRICS_WORKFLOWS
METRICS_CACHE_SECONDS = env.METRICS_CACHE_SECONDS

# ── Notifications ──
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if env.EMAIL_HOST else 'console'}.EmailBackend"
EMAIL_HOST = env.EMAIL_HOST
EMAIL_PORT = env.EMAIL_PORT
EMAIL_HOST_USER = env.EMAIL_USER
EMAIL_HOST_PASSWORD = env.EMAIL_PASSWORD
EMAIL_USE_TLS = env.EMAIL_USE_TLS
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.EMAIL_FROM
NOTIFICATION_WEBHOOK_GIVE_UP_HOURS = env.NOTIFICATION_WEBHOOK_GIVE_UP_HOURS
NOTIFICATIONS_KEPT_DAYS = env.NOTIFICATIONS_KEPT_DAYS

# ── Admin ──
FLOWER_URL = env.FLOWER_URL or f"http://127.0.0.1:{env.FLOWER_PORT}/"
