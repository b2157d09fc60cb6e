"""The tutorial is done as it is written: its files, its commands, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scheduling_project.environment import PROJECT_ROOT
from tests.scheduling_project.test_up_scenario import Up, data_dir  # noqa: F401 - a fixture

pytestmark = pytest.mark.scenario
TEXT = (PROJECT_ROOT / "docs/tutorial.md").read_text()
BLOCKS = re.findall(r"^```(sh|python|text|console)\n(.*?)^```", TEXT, re.S | re.M)
MARK = "──── block"


def shell(script: str, *, home: Path) -> str:
    """Run a script in one bash, as a person in one terminal. Returns what it prints."""
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=PROJECT_ROOT,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def test_the_tutorial_works_as_written(tmp_path: Path, data_dir: Path) -> None:  # noqa: F811 - the fixture
    kinds = [kind for kind, _ in BLOCKS]
    first, tasks, begin = BLOCKS[0][1], BLOCKS[1][1], kinds.index("console")
    assert kinds[:3] == ["sh", "python", "console"]
    # The packages are installed: this is their Python.
    setup = first.replace("make install\n", "").replace(".venv/bin/python", sys.executable)
    assert "EXTRA_APPS=hello make run" in shell(setup, home=tmp_path)
    (tmp_path / "my-steps/hello/tasks.py").write_text(tasks)

    rest = BLOCKS[begin + 1 :]
    path = os.pathsep.join(filter(None, [str(tmp_path / "my-steps"), os.environ.get("PYTHONPATH")]))
    running = Up(data_dir, PYTHONPATH=path, EXTRA_APPS="hello", DEMO="1")
    try:
        running.wait_until_ready()
        token = re.search(r"TOKEN=\S+", running.text)
        assert token is not None, "make run shows a token"
        commands = "".join(f"echo '{MARK}'\n{code}" for kind, code in rest if kind == "sh")
        script = f"{token[0]}\n{commands}".replace("http://127.0.0.1:8000", f"http://127.0.0.1:{running.port}")
        printed = shell(script, home=tmp_path).split(f"{MARK}\n")[1:]
    finally:
        running.process.terminate()
        running.process.wait(30)
    expected = [
        rest[position + 1][1] if position + 1 < len(rest) and rest[position + 1][0] == "text" else ""
        for position, (kind, _) in enumerate(rest)
        if kind == "sh"
    ]
    assert printed == expected
