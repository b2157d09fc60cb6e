"""Run every ``bench_*.py`` beside this file and keep its figures in `results/` (``make bench``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """One process each, one after the other; those named on the command line, or all. 1 when one fails."""
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    found = {path.stem.removeprefix("bench_"): path for path in sorted(FOLDER.glob("bench_*.py"))}
    usual = [name for name in found if name != "soak"]  # half an hour; make soak
    unknown = set(wanted) - set(found)
    if unknown:
        print(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(found)}.", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or usual:
        print(f"\n── {name} {'─' * (70 - len(name))}", flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", "--json", str(results / f"{name}.json")]
        if subprocess.run(command, cwd=FOLDER.parents[1], check=False).returncode:
            failed.append(name)
    print(f"\nfigures: {results}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
