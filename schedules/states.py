"""The outcomes of a due instant, and the policies a schedule can have. Nobody else lists them."""

from __future__ import annotations

from django.db import models


class FireOutcome(models.TextChoices):
    """How a due instant ended in the ledger. `buffered` is the only one that may still change."""

    BUFFERED = "buffered", "Buffered"
    STARTED = "started", "Started"
    SKIPPED = "skipped", "Skipped"
    MISSED = "missed", "Missed"


class FireReason(models.TextChoices):
    """Why an instant was skipped or missed."""

    OVERLAP = "overlap", "The previous run was still going"
    BUFFER_FULL = "buffer_full", "One run already waits for the previous to end"
    PAUSED = "paused", "Paused"
    BLACKOUT = "blackout", "Blackout window or calendar"
    MAX_EXECUTIONS = "max_executions", "The maximum number of executions was reached"
    OUTSIDE_WINDOW = "outside_window", "Older than the catch-up window"
    CATCH_UP_NONE = "catch_up_none", "The catch-up policy is none"
    CATCH_UP_LATEST = "catch_up_latest", "The catch-up policy keeps the latest only"
    CATCH_UP_LIMIT = "catch_up_limit", "More instants than one catch-up may start"
    STOPPED = "stopped", "All firing was stopped"
    ERROR = "error", "It could not be started"


class OverlapPolicy(models.TextChoices):
    """What happens when an instant is due while an earlier execution still runs (as Temporal names them)."""

    SKIP = "skip", "Skip"
    BUFFER_ONE = "buffer_one", "Buffer one"
    BUFFER_ALL = "buffer_all", "Buffer all"
    CANCEL_OTHER = "cancel_other", "Cancel the other"
    TERMINATE_OTHER = "terminate_other", "Terminate the other"
    ALLOW_ALL = "allow_all", "Allow all"


class CatchUpPolicy(models.TextChoices):
    """What happens with instants that were due while nothing could fire."""

    ALL = "all", "Start all"
    LATEST = "latest", "Start the latest"
    NONE = "none", "Start none"


class OnResume(models.TextChoices):
    """What is done about the instants that a pause covered, when it ends."""

    SKIP = "skip", "Record them as missed"
    CATCH_UP = "catch_up", "Apply the catch-up policy"


class PauseKind(models.TextChoices):
    """Who paused a schedule."""

    MANUAL = "manual", "By hand"
    FAILURES = "failures", "After repeated failures"
    ERROR = "error", "Its timing could not be computed"
    FINISHED = "finished", "Nothing left to fire"


class BackfillState(models.TextChoices):
    RUNNING = "running", "Running"
    CANCELLED = "cancelled", "Cancelled"
    FINISHED = "finished", "Finished"
    FAILED = "failed", "Its timing could not be computed"


class BackfillOrder(models.TextChoices):
    """Which instants of a backfill start first."""

    OLDEST = "oldest", "Oldest first"
    NEWEST = "newest", "Newest first"


class ChangeState(models.TextChoices):
    """What became of a proposal of the optimiser. Advice that only people can follow stays `proposed`."""

    PROPOSED = "proposed", "Proposed"
    APPLIED = "applied", "Applied"
    REVERTED = "reverted", "Reverted"


class ConflictCode(models.TextChoices):
    """What can be wrong between schedules, or with one of them."""

    DUPLICATE = "duplicate", "The same timing and the same workflow"
    OVERLAPPING_RUNS = "overlapping_runs", "Runs take longer than the time to the next"
    QUEUE_FULL = "queue_full", "More runs at once than the workers of a queue take"
    POOL_FULL = "pool_full", "More units at once than a pool has"
    EXCLUSIVE = "exclusive", "A resource for one is wanted by several at once"
    BLACKOUT = "blackout", "Instants fall into a blackout"
    NEVER_FIRES = "never_fires", "It never fires"


class ConflictSeverity(models.TextChoices):
    """How much a conflict matters: an error where the schedule says that such a conflict is to be refused."""

    NOTICE = "notice", "Notice"
    WARNING = "warning", "Warning"
    ERROR = "error", "Error"


class OnConflict(models.TextChoices):
    """What a schedule wants done about conflicts when it is saved."""

    IGNORE = "ignore", "Say nothing"
    WARN = "warn", "Warn"
    REJECT = "reject", "Refuse to save"
