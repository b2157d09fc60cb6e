"""Run one command and end it when the process that asked for it is gone.

The supervisor starts every process through this script: ``python guard.py [options] -- command…``. The
guard's standard input is one end of a socket pair whose other end only the supervisor holds. When that end
closes (because the supervisor wants the command to stop, or because somebody killed it with ``kill -9``)
the guard sends the command the signals of its plan, one after the other, until its whole process group is
gone. Stopping and crashing are therefore the same path, on Linux and on macOS, and no orphan is left
behind.

Only the standard library is imported and nothing of this project: the script is run by its path, so that it
starts in some 20 ms and its behaviour cannot depend on Django or on settings.

Protocol on the socket: the guard writes ``pid <n>\\n`` once the command runs, or ``error <message>\\n`` and
exits with 127 when it cannot be run. It exits with the command's own exit code (128 + n when signal n ended
it).
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

DEFAULT_PLAN = "TERM:10,KILL:2"
EXIT_CANNOT_RUN = 127
#: How often the process group is looked at while it is being ended, in seconds.
POLL = 0.05

PR_SET_PDEATHSIG = 1

Step = tuple[signal.Signals, float]


def parse_plan(text: str) -> list[Step]:
    """Parse a stop plan.

    >>> parse_plan("INT:5,KILL:1")
    [(<Signals.SIGINT: 2>, 5.0), (<Signals.SIGKILL: 9>, 1.0)]

    Raises ``ValueError`` for an unknown signal or a bad number of seconds.
    """
    steps: list[Step] = []
    for part in text.split(","):
        name, _, seconds = part.partition(":")
        try:
            number = signal.Signals[f"SIG{name.strip().upper()}"]
        except KeyError:
            raise ValueError(f"unknown signal {name!r} in the stop plan {text!r}") from None
        steps.append((number, float(seconds or 0)))
    return steps


def die_with_parent(parent: int, ending: signal.Signals) -> Callable[[], None]:  # pragma: no cover - after the fork
    """Return a hook for the child that asks Linux to signal it when this guard itself is killed.

    The guard has one thread, so the kernel's "parent thread" is the guard. Elsewhere than on Linux this
    does nothing: there only a ``kill -9`` of the guard itself (not of the supervisor) can leave its command
    behind.
    """

    def hook() -> None:
        try:
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(ending), 0, 0, 0)
        except (AttributeError, OSError, ImportError):
            return
        if os.getppid() != parent:
            os._exit(EXIT_CANNOT_RUN)

    return hook


def group_exists(group: int) -> bool:
    """Say whether a process of the group is left (a zombie that nobody reaped counts)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signal_group(group: int, number: int) -> None:
    """Send a signal to the whole group; a group that is gone is fine."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def exit_code(status: int) -> int:
    """Translate ``Popen.returncode`` to a shell's exit code.

    >>> exit_code(0), exit_code(3), exit_code(-15)
    (0, 3, 143)
    """
    return 128 - status if status < 0 else status


class Guard:
    """One command, its process group and the line to the supervisor (file descriptor ``line``)."""

    def __init__(self, command: Sequence[str], *, plan: Sequence[Step], line: int, leader_only: bool) -> None:
        self.command = list(command)
        self.plan = list(plan)
        self.line = line
        #: Send the plan's signals to the command only (it ends its own children), not to its whole group.
        self.leader_only = leader_only
        self.child: subprocess.Popen[bytes] | None = None
        self.asked_to_stop = 0
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_write, False)
        os.set_blocking(self.wake_read, False)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Count a request to stop; ``SIGCHLD`` only wakes the loop, through the wake-up descriptor."""
        if number != signal.SIGCHLD:
            self.asked_to_stop += 1

    def run(self, *, user: int | None = None, group: int | None = None) -> int:
        """Run the command to its end and return its exit code. Never raises for a command that cannot run."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self.on_signal)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        try:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                process_group=0,
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
                preexec_fn=die_with_parent(os.getpid(), self.plan[0][0]),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.tell(f"error cannot run {self.command[0]}: {error}")
            return EXIT_CANNOT_RUN
        self.tell(f"pid {self.child.pid}")
        status = self.wait_for_end()
        if status is None:
            status = self.end(self.child)
        else:
            # The command ended by itself; whatever it left in its group must not outlive it.
            self.end_group(self.child.pid, [(signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0)])
        return exit_code(status)

    def tell(self, message: str) -> None:
        """Write one line to the supervisor; it may be gone already."""
        try:
            os.write(self.line, message.replace("\n", " ").encode() + b"\n")
        except OSError:
            self.asked_to_stop += 1

    def wait_for_end(self) -> int | None:
        """Wait until the command ends (its status) or until it has to be ended (None)."""
        assert self.child is not None
        while True:
            status = self.child.poll()
            if status is not None:
                return status
            if self.asked_to_stop:
                return None
            readable, _, _ = select.select([self.line, self.wake_read], [], [])
            if self.wake_read in readable:
                os.read(self.wake_read, 512)
            if self.line in readable and not self.line_is_open():
                return None

    def line_is_open(self) -> bool:
        """Read from the line; end of file or an error means that the supervisor is gone or wants an end."""
        try:
            return bool(os.read(self.line, 512))
        except OSError:
            return False

    def end(self, child: subprocess.Popen[bytes]) -> int:
        """Go through the plan until the command has ended, then end what is left of its group."""
        requests = self.asked_to_stop
        for number, seconds in self.plan:
            if self.leader_only and number != signal.SIGKILL:
                if child.poll() is None:
                    os.kill(child.pid, number)
            else:
                signal_group(child.pid, number)
            deadline = time.monotonic() + seconds
            while child.poll() is None and time.monotonic() < deadline and self.asked_to_stop <= requests:
                time.sleep(POLL)
            requests = self.asked_to_stop
            if child.returncode is not None:
                break
        self.end_group(child.pid, [(signal.SIGTERM, 0.5), (signal.SIGKILL, 1.0)])
        return child.wait()

    def end_group(self, group: int, plan: Sequence[Step]) -> None:
        """End the processes that the command left in its group."""
        for number, seconds in plan:
            deadline = time.monotonic() + seconds
            signal_group(group, number)
            while group_exists(group):
                if time.monotonic() >= deadline:
                    break
                time.sleep(POLL)
            else:
                return


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the guard."""
    parser = argparse.ArgumentParser(prog="guard", description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--plan", default=DEFAULT_PLAN, help="signals and seconds to wait, as TERM:10,KILL:2")
    parser.add_argument("--user", type=int, help="numeric user id to run the command as")
    parser.add_argument("--group", type=int, help="numeric group id to run the command as")
    parser.add_argument("--leader-only", action="store_true", help="signal the command, not its whole group")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(argv)
    guard = Guard(
        options.command,
        plan=parse_plan(options.plan),
        line=sys.stdin.fileno(),
        leader_only=options.leader_only,
    )
    return guard.run(user=options.user, group=options.group)


if __name__ == "__main__":
    sys.exit(main())
