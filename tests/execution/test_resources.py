"""What processes and hosts use, within control groups or without, and what follows from it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from execution import cgroups, resources
from execution.pressure import Limits, Pressure, pressure_of
from execution.resources import Monitor


def group(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def membership(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "membership"
    path.write_text(text)
    return path


def test_the_tightest_limit_of_all_groups_around_counts(tmp_path: Path) -> None:
    root = group(
        tmp_path / "v2",
        {
            "cgroup.controllers": "cpu memory",
            "pod/memory.max": "1000000",
            "pod/cpu.max": "50000 100000",
            "pod/box/memory.max": "max",
            "pod/box/cpu.max": "max 100000",
            "pod/box/memory.current": "700",
            "pod/box/memory.stat": "anon 100\ninactive_file 300\nbroken line here",
            "pod/box/cpu.stat": "usage_usec 2500000",
        },
    )
    found = cgroups.limits(root=root, membership=membership(tmp_path, "0::/pod/box\n"))
    assert found == cgroups.Limits(memory_bytes=1_000_000, memory_used=400, cores=0.5, cpu_seconds=2.5)
    elsewhere = cgroups.limits(root=root, membership=membership(tmp_path, "0::/not/seen/from/here"))
    assert elsewhere == cgroups.Limits()


def test_version_1_has_the_same_limits_elsewhere(tmp_path: Path) -> None:
    root = group(
        tmp_path / "v1",
        {
            "memory/box/memory.limit_in_bytes": "5000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/box/memory.usage_in_bytes": "900",
            "memory/box/memory.stat": "total_inactive_file 100",
            "cpu/box/cpu.cfs_quota_us": "150000",
            "cpu/box/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/box/cpuacct.usage": "3000000000",
        },
    )
    found = cgroups.limits(root=root, membership=membership(tmp_path, "4:memory:/box\n3:cpu,cpuacct:/box\n"))
    assert found == cgroups.Limits(memory_bytes=5_000, memory_used=800, cores=1.5, cpu_seconds=3.0)


def test_where_there_are_no_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert cgroups.limits(root=tmp_path / "none", membership=tmp_path / "nobody") == cgroups.Limits()


def test_a_measurement_has_the_process_and_its_host() -> None:
    monitor = Monitor()
    until = time.process_time() + 0.05  # the kernel counts in hundredths of a second
    while time.process_time() < until:
        pass
    usage = monitor.measure()
    assert usage.process.memory_bytes > 1_000_000
    assert usage.process.processes >= 1
    assert usage.process.cpu_percent > 0
    assert 0 <= usage.host.cpu_percent <= 100
    assert 0 < usage.host.memory_available <= usage.host.memory_total
    assert usage.as_json()["host"]["memory_percent"] == round(usage.host.memory_percent, 1)


def test_a_container_counts_as_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter([10.0, 10.0, 1e9])
    total = psutil.virtual_memory().total

    def limited() -> cgroups.Limits:
        return cgroups.Limits(memory_bytes=total // 2, memory_used=total // 2, cores=0.5, cpu_seconds=next(spent))

    monkeypatch.setattr(cgroups, "limits", limited)
    monitor = Monitor()
    first, second = monitor.measure().host, monitor.measure().host
    assert (first.cores, first.in_container, first.memory_total, first.memory_available) == (0.5, True, total // 2, 0)
    assert (first.memory_percent, first.cpu_percent, second.cpu_percent) == (100, 0, 100)


def test_a_process_that_ends_meanwhile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(psutil.Process):
        def cpu_times(self) -> Any:
            raise psutil.NoSuchProcess(self.pid)

    assert os.getpid() not in {pid for pid, _ in resources._tree(Gone())}
    assert resources.tree_memory(Gone()) < resources.tree_memory(psutil.Process())


def test_a_clock_of_the_host_that_stands_still_is_no_load() -> None:
    times = psutil.cpu_times()
    assert resources._busy_share(times, times) == 0
    assert resources.HostUsage(0, 1, 0, 0, 0, (0, 0, 0), False).memory_percent == 0


LIMITS = Limits(cpu_high=80, cpu_full=95, memory_high=85, memory_full=95)


@pytest.mark.parametrize(
    ("cpu", "memory", "before", "after"),
    [
        (10, 10, Pressure.NONE, Pressure.NONE),
        (81, 10, Pressure.NONE, Pressure.HIGH),
        (10, 86, Pressure.NONE, Pressure.HIGH),
        (96, 10, Pressure.NONE, Pressure.FULL),
        (91, 10, Pressure.FULL, Pressure.FULL),  # not yet far enough below
        (89, 10, Pressure.FULL, Pressure.HIGH),
        (76, 10, Pressure.HIGH, Pressure.HIGH),
        (74, 10, Pressure.HIGH, Pressure.NONE),
        (76, 10, Pressure.NONE, Pressure.NONE),
    ],
)
def test_pressure_rises_at_once_and_falls_late(cpu: float, memory: float, before: Pressure, after: Pressure) -> None:
    assert pressure_of(cpu=cpu, memory=memory, limits=LIMITS, before=before) is after


def test_without_limits_there_is_no_pressure() -> None:
    assert pressure_of(cpu=100, memory=100, limits=Limits()) is Pressure.NONE
