"""Tell the supervisor when the code changes, in development."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import watchfiles

IGNORED_TOP_LEVEL = {"tests", "docs", "docker", "build", "dist", "node_modules"}


def source_folders(root: Path, extra_apps: Iterable[str] = ()) -> list[Path]:
    """Return the folders with code: the packages below ``root`` and the apps that live elsewhere."""
    folders = {
        path
        for path in root.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and path.name not in IGNORED_TOP_LEVEL
        and any(path.glob("*.py"))
    }
    for name in extra_apps:
        spec = importlib.util.find_spec(name.split(".")[0])
        for location in (spec.submodule_search_locations or []) if spec else []:
            folders.add(Path(location).resolve())
    return sorted(folders)


class CodeWatcher:
    """A thread that reports changed ``.py`` files of some folders, a moment after the last change of a
    burst."""

    def __init__(
        self, folders: Sequence[Path], report: Callable[[set[str]], None], complain: Callable[[str], None]
    ) -> None:
        self._folders = folders
        self._report = report
        self._complain = complain
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="code watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._end.set()
        self._thread.join(timeout=2.0)

    def _watch(self) -> None:
        try:
            for changes in watchfiles.watch(
                *self._folders,
                watch_filter=watchfiles.PythonFilter(),
                debounce=400,
                rust_timeout=500,
                yield_on_timeout=False,
                stop_event=self._end,
                raise_interrupt=False,
            ):
                self._report({path for _, path in changes})
        except OSError as error:  # no inotify watches left, for instance
            self._complain(f"changes of the code are not watched: {error}")
