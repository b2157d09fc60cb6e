"""The supervisor with small real processes: order, reverse order, deaths, kills, changes of the code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduling_project.supervisor import guard, process
from scheduling_project.supervisor.output import Output, wants_colour
from scheduling_project.supervisor.process import CannotStart, GuardedProcess
from scheduling_project.supervisor.reload import CodeWatcher, source_folders
from scheduling_project.supervisor.supervisor import (
    NotReady,
    Service,
    ServiceDied,
    StopRequested,
    Supervisor,
    describe_exit,
)

ROOT = Path(__file__).resolve().parents[2]

#: Says when it begins and when SIGTERM ends it.
POLITE = """
import signal, sys, time
def end(number, frame):
    print("ended", flush=True)
    open(sys.argv[1], "a").write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("begun", flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
time.sleep(60)
"""


def gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


class Screen(io.StringIO):
    """A terminal to look at."""

    def wait_for(self, text: str, seconds: float = 15.0) -> str:
        deadline = time.monotonic() + seconds
        while text not in self.getvalue():
            assert time.monotonic() < deadline, f"{text!r} never came; there was:\n{self.getvalue()}"
            time.sleep(0.02)
        return self.getvalue()


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def supervisor(screen: Screen) -> Iterator[Supervisor]:
    supervisor = Supervisor(Output(screen, colour=False), stop_timeout=6)
    yield supervisor
    supervisor.stop_all()


def python(name: str, program: str, *arguments: str, plan: str = "TERM:5,KILL:1", **options: object) -> Service:
    return Service(name, (sys.executable, "-c", program, *arguments), plan=plan, **options)  # type: ignore[arg-type]


class TestOrder:
    def test_processes_stop_in_the_reverse_order_of_their_start(
        self, supervisor: Supervisor, screen: Screen, tmp_path: Path
    ) -> None:
        diary = tmp_path / "diary"
        for name in ("first", "second", "third"):
            supervisor.start(python(name, POLITE, str(diary), name))
            screen.wait_for(f"{name:<8} │ begun")
        supervisor.check()
        supervisor.stop_all()
        assert diary.read_text().split() == ["third", "second", "first"]
        assert screen.getvalue().count("ended") == 3

    def test_the_environment_and_the_folder_are_handed_over(self, screen: Screen, tmp_path: Path) -> None:
        supervisor = Supervisor(Output(screen, colour=False), cwd=tmp_path)
        supervisor.run(python("child", "import os; print(os.environ['WORD'], os.getcwd())", env={"WORD": "hello"}))
        assert f"child    │ hello {tmp_path}" in screen.getvalue()

    def test_a_preparation_that_fails_is_named_with_its_last_lines(self, supervisor: Supervisor) -> None:
        with pytest.raises(ServiceDied, match="prepare ended with exit code 3") as died:
            supervisor.run(python("prepare", "print('the reason'); raise SystemExit(3)"))
        assert died.value.lines == ["the reason"]

    def test_a_stop_ends_a_preparation(self, supervisor: Supervisor) -> None:
        threading.Timer(0.5, supervisor.request_stop).start()
        began = time.monotonic()
        with pytest.raises(StopRequested):
            supervisor.run(python("prepare", "import time; time.sleep(60)"))
        assert time.monotonic() - began < 10

    def test_a_program_that_is_not_there_is_named(self, supervisor: Supervisor) -> None:
        with pytest.raises(ServiceDied, match="absent could not be started") as died:
            supervisor.start(Service("absent", ("/no/such/program",)))
        assert "/no/such/program" in died.value.lines[0]


class TestReadiness:
    def test_it_waits_until_nothing_is_missing(self, supervisor: Supervisor) -> None:
        answers = iter(["this", "that", None])
        supervisor.wait_for(lambda: next(answers), timeout=5, interval=0.01)

    def test_what_is_missing_at_the_end_is_said(self, supervisor: Supervisor) -> None:
        with pytest.raises(NotReady, match="beat was not seen"):
            supervisor.wait_for(lambda: "beat was not seen", timeout=0.1, interval=0.01)

    def test_a_death_while_waiting_is_noticed(self, supervisor: Supervisor) -> None:
        supervisor.start(python("web", "raise SystemExit(1)"))
        with pytest.raises(ServiceDied, match="web ended with exit code 1"):
            supervisor.wait_for(lambda: "never", timeout=20, interval=0.01)


class TestDeath:
    def test_one_death_is_reported_with_name_code_and_last_lines(self, supervisor: Supervisor) -> None:
        supervisor.start(python("steady", "import time; time.sleep(60)"))
        supervisor.start(python("weak", "for n in range(50): print('line', n)\nraise SystemExit(7)"))
        with pytest.raises(ServiceDied, match="weak ended with exit code 7") as died:
            supervisor.watch()
        assert died.value.lines[-1] == "line 49"
        assert len(died.value.lines) == 20

    def test_a_killed_process_is_named_with_its_signal(self, supervisor: Supervisor, screen: Screen) -> None:
        supervisor.start(python("victim", "import os; print(os.getpid(), flush=True); import time; time.sleep(60)"))
        screen.wait_for("victim   │ ")
        screen.wait_for("\n")
        os.kill(int(screen.getvalue().split("│")[1]), signal.SIGKILL)
        with pytest.raises(ServiceDied, match="victim was ended by signal SIGKILL"):
            supervisor.watch()

    def test_an_adopted_process_that_ends_is_reported_with_its_own_log(self, supervisor: Supervisor) -> None:
        child = GuardedProcess.start([sys.executable, "-c", "raise SystemExit(2)"])
        supervisor.adopt("postgres", child, lambda: ["from the log"])
        with pytest.raises(ServiceDied, match="postgres ended with exit code 2") as died:
            supervisor.watch()
        assert died.value.lines == ["from the log"]

    @pytest.mark.parametrize(
        ("code", "words"),
        [(0, "ended with exit code 0"), (143, "was ended by signal SIGTERM"), (255, "ended with exit code 255")],
    )
    def test_exit_codes_in_words(self, code: int, words: str) -> None:
        assert describe_exit(code) == words


class TestStop:
    def test_a_process_that_does_not_end_is_forced_and_named(self, screen: Screen) -> None:
        supervisor = Supervisor(Output(screen, colour=False), stop_timeout=6)
        supervisor.start(python("stubborn", STUBBORN, plan="TERM:30,KILL:1", patience=0.5))
        screen.wait_for("begun")
        began = time.monotonic()
        supervisor.stop_all()
        assert time.monotonic() - began < 5
        assert "stubborn does not end by itself: forcing it" in screen.getvalue()

    def test_many_that_do_not_end_are_gone_within_the_timeout(self, screen: Screen) -> None:
        supervisor = Supervisor(Output(screen, colour=False), stop_timeout=2)
        for name in ("one", "two", "three"):
            supervisor.start(python(name, STUBBORN, plan="TERM:30,KILL:1", patience=30))
            screen.wait_for(f"{name:<8} │ begun")
        began = time.monotonic()
        supervisor.stop_all()
        assert time.monotonic() - began < 6

    def test_a_second_request_hurries(self, screen: Screen) -> None:
        supervisor = Supervisor(Output(screen, colour=False), stop_timeout=30)
        supervisor.start(python("slow", STUBBORN, plan="TERM:30,KILL:1", patience=30))
        screen.wait_for("begun")
        supervisor.request_stop()
        threading.Timer(0.5, supervisor.request_stop).start()
        began = time.monotonic()
        supervisor.stop_all()
        assert time.monotonic() - began < 6

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signals_request_the_stop(self, supervisor: Supervisor, number: signal.Signals) -> None:
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        supervisor.listen_to_signals()
        try:
            os.kill(os.getpid(), number)
            with pytest.raises(StopRequested):
                supervisor.watch()
        finally:
            for n, handler in before.items():
                signal.signal(n, handler)

    def test_nobody_reading_our_output_is_a_request_to_stop(self) -> None:
        stream = Screen()
        output = Output(stream, colour=False)
        stream.close()
        output.plain("hello")
        output.plain("again")
        with pytest.raises(StopRequested):
            Supervisor(output).check()


class TestChangeOfCode:
    def test_the_processes_that_reload_start_anew_and_the_others_stay(
        self, supervisor: Supervisor, screen: Screen, tmp_path: Path
    ) -> None:
        supervisor.start(python("fixed", POLITE, str(tmp_path / "fixed"), "fixed"))
        supervisor.start(python("moving", POLITE, str(tmp_path / "moving"), "moving", reloads=True))
        screen.wait_for("moving   │ begun")
        supervisor.code_changed({"/x/tasks.py"})
        threading.Timer(1.0, supervisor.request_stop).start()
        with pytest.raises(StopRequested):
            supervisor.watch()
        assert "tasks.py changed: restarting moving" in screen.getvalue()
        assert screen.getvalue().count("moving   │ begun") == 2
        assert screen.getvalue().count("fixed    │ begun") == 1

    def test_a_mistake_in_the_change_waits_for_the_next_change(
        self, supervisor: Supervisor, screen: Screen, tmp_path: Path
    ) -> None:
        program = tmp_path / "program.py"
        program.write_text("import time; print('good', flush=True); time.sleep(60)")
        supervisor.start(Service("worker", (sys.executable, str(program)), reloads=True))
        screen.wait_for("good")

        def watch() -> None:
            with contextlib.suppress(StopRequested):
                supervisor.watch()

        watching = threading.Thread(target=watch)
        watching.start()
        program.write_text("print('mistake', flush=True); raise SystemExit(1)")
        supervisor.code_changed({str(program)})
        screen.wait_for("worker ended with exit code 1 after the change: it starts again with the next change")
        program.write_text("import time; print('better', flush=True); time.sleep(60)")
        supervisor.code_changed({str(program)})
        screen.wait_for("better")
        supervisor.request_stop()
        watching.join(15)
        assert not watching.is_alive()

    def test_the_watcher_reports_changed_python_files(self, tmp_path: Path) -> None:
        seen: set[str] = set()
        watcher = CodeWatcher([tmp_path], seen.update, pytest.fail)
        watcher.start()
        deadline = time.monotonic() + 15
        while not seen and time.monotonic() < deadline:
            (tmp_path / "notes.txt").write_text(str(time.monotonic()))
            (tmp_path / "tasks.py").write_text(str(time.monotonic()))
            time.sleep(0.3)
        watcher.stop()
        assert seen == {str(tmp_path / "tasks.py")}

    def test_a_watcher_that_cannot_watch_says_so(self, tmp_path: Path) -> None:
        complaints: list[str] = []
        watcher = CodeWatcher([tmp_path / "none"], lambda paths: None, complaints.append)
        watcher.start()
        watcher.stop()
        assert "not watched" in complaints[0]

    def test_the_folders_with_code_are_found(self, tmp_path: Path) -> None:
        for name in ("app", "tests", ".hidden", "empty"):
            (tmp_path / name).mkdir()
            if name != "empty":
                (tmp_path / name / "models.py").touch()
        (tmp_path / "manage.py").touch()
        found = source_folders(tmp_path, ["json.decoder", "no_such_app", "pwd"])
        assert found == sorted([tmp_path / "app", Path(os.__file__).resolve().parent / "json"])


class TestOutput:
    def test_each_line_has_its_name_in_front(self, screen: Screen) -> None:
        output = Output(screen, colour=False)
        output.line("web", "hello")
        output.plain("as it is")
        assert screen.getvalue() == "web      │ hello\nas it is\n"

    def test_each_name_has_a_colour_of_its_own(self, screen: Screen) -> None:
        output = Output(screen, colour=True)
        output.line("web", "hello")
        output.line("beat", "hello")
        output.line("web", "again")
        first, second, third = screen.getvalue().splitlines()
        assert [line[:5] for line in (first, second, third)] == ["\x1b[36m", "\x1b[32m", "\x1b[36m"]

    def test_bytes_that_are_no_text_do_no_harm(self, screen: Screen) -> None:
        output = Output(screen, colour=False)
        writing = output.pump("raw")
        os.write(writing, b"\xff\xfe ok\r\nunfinished")
        os.close(writing)
        output.drain("raw")
        output.drain("raw")
        assert output.last_lines("raw") == ["\ufffd\ufffd ok", "unfinished"]
        output.forget("raw")
        assert output.last_lines("raw") == []

    @pytest.mark.parametrize(
        ("environment", "terminal", "wanted"),
        [
            ({}, True, True),
            ({}, False, False),
            ({"TERM": "dumb"}, True, False),
            ({"NO_COLOR": "1"}, True, False),
            ({"FORCE_COLOR": "1"}, False, True),
            ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ],
    )
    def test_colour_is_for_terminals(self, environment: dict[str, str], terminal: bool, wanted: bool) -> None:
        screen = Screen()
        screen.isatty = lambda: terminal  # type: ignore[method-assign]
        assert wants_colour(screen, environment) is wanted


class TestGuard:
    @pytest.mark.parametrize("text", ["NONSENSE:1", "TERM:soon"])
    def test_a_bad_plan_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"unknown signal|could not convert"):
            guard.parse_plan(text)

    def test_the_exit_code_is_the_commands(self) -> None:
        assert GuardedProcess.start([sys.executable, "-c", "raise SystemExit(5)"]).wait(20) == 5

    def test_grandchildren_end_with_the_command(self, screen: Screen) -> None:
        program = (
            "import subprocess, sys, time; "
            "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print(p.pid, flush=True)"
        )
        output = Output(screen, colour=False)
        for ending in ("", "; time.sleep(60)"):
            writing = output.pump("parent")
            child = GuardedProcess.start([sys.executable, "-c", program + ending], output=writing)
            os.close(writing)
            screen.wait_for("\n")
            grandchild = int(screen.getvalue().split("│")[1])
            child.stop()
            assert gone(grandchild)
            screen.truncate(0), screen.seek(0)

    def test_a_grandchild_that_does_not_listen_is_killed(self, screen: Screen) -> None:
        program = (
            "import subprocess, sys, time; "
            f"p = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); time.sleep(0.5); print(p.pid, flush=True)"
        )
        output = Output(screen, colour=False)
        writing = output.pump("parent")
        child = GuardedProcess.start([sys.executable, "-c", program], output=writing)
        os.close(writing)
        screen.wait_for("│ begun")
        assert child.wait(15) == 0
        output.drain("parent")
        pid = next(int(line) for line in output.last_lines("parent") if line.isdigit())
        assert gone(pid)

    def test_only_the_command_gets_the_polite_signals_when_it_ends_its_children_itself(
        self, screen: Screen, tmp_path: Path
    ) -> None:
        output = Output(screen, colour=False)
        writing = output.pump("leader")
        program = POLITE.replace("time.sleep(60)", "import subprocess; subprocess.run(['sleep', '60'])")
        child = GuardedProcess.start(
            [sys.executable, "-c", program, str(tmp_path / "d"), "x"], output=writing, leader_only=True
        )
        os.close(writing)
        screen.wait_for("begun")
        child.stop()
        assert (tmp_path / "d").read_text() == "x\n"

    def test_a_guard_that_is_asked_to_end_ends_its_command(self) -> None:
        child = GuardedProcess.start(["sleep", "60"])
        child.hurry()
        assert child.wait(15) == 128 + signal.SIGTERM
        child.hurry()
        assert gone(child.pid)

    @pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
    def test_a_killed_guard_takes_its_command_along(self) -> None:
        child = GuardedProcess.start(["sleep", "60"])
        child._popen.kill()
        assert gone(child.pid)
        child.stop()

    def test_kill_dash_nine_of_the_supervisor_leaves_no_orphans(self, tmp_path: Path) -> None:
        program = textwrap.dedent(
            f"""
            import sys, time
            from scheduling_project.supervisor.output import Output
            from scheduling_project.supervisor.supervisor import Service, Supervisor
            supervisor = Supervisor(Output(sys.stdout, colour=False))
            family = "import subprocess, os, time; p = subprocess.Popen(['sleep', '60']); " \\
                     "print(os.getpid(), p.pid, flush=True); time.sleep(60)"
            stubborn = {STUBBORN!r}
            supervisor.start(Service("family", ({sys.executable!r}, "-c", family), plan="TERM:5,KILL:1"))
            supervisor.start(Service("stubborn", ({sys.executable!r}, "-c", stubborn), plan="TERM:1,KILL:1"))
            supervisor.watch()
            """
        )
        boss = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert boss.stdout is not None
        lines = [boss.stdout.readline() for _ in range(2)]
        everybody = psutil.Process(boss.pid).children(recursive=True)
        boss.kill()
        boss.wait()
        boss.stdout.close()
        assert any("family" in line for line in lines)
        assert len(everybody) >= 5, "two guards, two commands, one grandchild"
        assert all(gone(member.pid) for member in everybody)

    def test_a_guard_that_never_answers_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, theirs = socket.socketpair()
        monkeypatch.setattr(process, "START_TIMEOUT", 0.05)
        with pytest.raises(CannotStart, match="no answer"):
            process._read_pid(ours)
        theirs.close()
        with pytest.raises(CannotStart, match="ended before"):
            process._read_pid(ours)
        ours.close()

    def test_a_missing_interpreter_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(CannotStart, match="/no/such/python"):
            GuardedProcess.start(["sleep", "1"])
