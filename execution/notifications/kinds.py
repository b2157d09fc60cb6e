"""What people can be told of, by which way, and what becomes of a message. Nobody else lists these."""

from __future__ import annotations

from typing import Final

from django.db.models import TextChoices


class NotificationKind(TextChoices):
    """What a rule looks for."""

    FAILED = "failed", "An execution failed"
    FAILED_IN_A_ROW = "failed_in_a_row", "Executions failed several times in a row"
    RECOVERED = "recovered", "An execution succeeded after failures"
    DEAD_LETTER = "dead_letter", "A dead letter arrived"
    DEAD_LETTERS_GROW = "dead_letters_grow", "A group of dead letters grows"
    FIRE_MISSED = "fire_missed", "Due instants were missed"
    FIRE_LATE = "fire_late", "A schedule fired late"
    RUNNING_LONG = "running_long", "An execution runs too long"
    NO_RUN = "no_run", "Nothing ran within the expected interval"
    QUEUE_OLD = "queue_old", "Work waits too long in a queue"
    LEDGER_DIFFERS = "ledger_differs", "The ledger differs from the timing"
    SCHEDULE_STOPPED = "schedule_stopped", "A schedule was taken out of firing"


class Channel(TextChoices):
    EMAIL = "email", "Email"
    WEBHOOK = "webhook", "Webhook"


class NotificationState(TextChoices):
    PENDING = "pending", "Pending"
    SENT = "sent", "Sent"
    FAILED = "failed", "Given up"


#: Conditions that hold for a while: looked for every few seconds, told when they begin to hold.
WATCHED: Final = frozenset({NotificationKind.RUNNING_LONG, NotificationKind.NO_RUN, NotificationKind.QUEUE_OLD})
#: What a rule of a kind must say: ``threshold`` (a number of times) or ``seconds``.
NEEDS_THRESHOLD: Final = frozenset({NotificationKind.FAILED_IN_A_ROW})
NEEDS_SECONDS: Final = frozenset({NotificationKind.FIRE_LATE, NotificationKind.NO_RUN, NotificationKind.QUEUE_OLD})
