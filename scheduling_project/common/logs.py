"""Structured logs: an event name plus ids, for people (console) or machines (one JSON object a line)."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

SHARED_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_config(*, level: str, form: Literal["console", "json"]) -> dict[str, Any]:
    """Configure structlog and return the matching value for Django's ``LOGGING``."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=False, pad_event_to=0, pad_level=False, exception_formatter=structlog.dev.plain_traceback
        )
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *([structlog.processors.format_exc_info] if form == "json" else []),
                    renderer,
                ],
                "foreign_pre_chain": SHARED_PROCESSORS,
            },
        },
        # Django repeats every 4xx and 503 answer; only what went wrong inside is worth a line of its own.
        "filters": {"crashes": {"()": "django.utils.log.CallbackFilter", "callback": is_crash}},
        "handlers": {"stderr": {"()": stderr_handler, "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "celery.redirected": {"level": "WARNING"},
            "django.request": {"filters": ["crashes"]},
            "httpx": {"level": "WARNING"},
            "httpcore": {"level": "WARNING"},
        },
    }


def stderr_handler() -> logging.Handler:
    """A handler that writes to this process's standard error.

    A worker puts a logger in the place of `sys.stderr`. Where Django is set up again in one (by somebody's step, say),
    a handler on that logger would be asked to write to itself, and every line from then on would be lost.
    """
    celery_log = sys.modules.get("celery.utils.log")
    redirected = celery_log is not None and isinstance(sys.stderr, celery_log.LoggingProxy)
    return logging.StreamHandler(sys.__stderr__ if redirected else sys.stderr)


def is_crash(record: logging.LogRecord) -> bool:
    """Whether Django logs an exception, not just an answer that says no."""
    return record.exc_info is not None and record.exc_info[0] is not None


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The structured logger of a module; call it with an event name and ids."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
