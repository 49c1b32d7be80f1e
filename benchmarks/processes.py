"""Running a command, and watching it and its descendants through /proc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
INTERVAL_SECONDS = 0.1
SHARED_INTERVAL_SECONDS = 0.5
TIMEOUT_SECONDS = 600.0


class BenchmarkError(Exception):
    """A measurement did not come about; the message says why."""


def fl() -> list[str]:
    """The command ``fl`` of this interpreter."""
    script = Path(sys.executable).with_name("fl")
    return [str(script)] if script.exists() else [sys.executable, "-m", "fl_core.cli"]


@dataclass
class Process:
    """What was seen of one process."""

    name: str
    peak_bytes: int = 0
    """Largest resident set; pages shared with its siblings count in each of them."""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since 1970, and the CPU seconds used until then."""

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds that it had used when it was last seen."""
        return self.cpu[-1][1]

    def cpu_share(self, start: float, end: float) -> float | None:
        """Share of one core used from ``start`` to ``end``; None if it was not there to be seen."""
        inside = [sample for sample in self.cpu if start <= sample[0] <= end]
        if len(inside) < 2:
            return None
        (first, before), (last, after) = inside[0], inside[-1]
        return (after - before) / (last - first)


class Watch:
    """Looks at processes and all their descendants, several times a second, until stopped."""

    def __init__(self, roots: Mapping[int, str]) -> None:
        """``roots``: names of the first processes by id."""
        self._roots = roots
        self._seen: dict[tuple[int, int], Process] = {}
        self.peak_shared_bytes = 0
        """Most memory of all processes together, a page that several share counted once."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def processes(self) -> list[Process]:
        """All that were seen, the first started first."""
        return [self._seen[key] for key in sorted(self._seen, key=lambda key: key[1])]

    def _run(self) -> None:
        next_shared = 0.0
        while not self._stop.wait(INTERVAL_SECONDS):
            pids = self._look()
            if time.monotonic() >= next_shared:
                shared = sum(_proportional_bytes(pid) for pid in pids)
                self.peak_shared_bytes = max(self.peak_shared_bytes, shared)
                next_shared = time.monotonic() + SHARED_INTERVAL_SECONDS

    def _look(self) -> list[int]:
        stats = dict(_stats())
        family = set(self._roots) & stats.keys()
        grown = True
        while grown:
            more = {pid for pid, stat in stats.items() if stat.parent in family} - family
            grown = bool(more)
            family |= more
        now = time.time()
        for pid in family:
            name, peak = self._roots.get(pid) or _name(pid), _peak_bytes(pid)
            if not name or not peak:
                continue
            process = self._seen.setdefault((pid, stats[pid].start), Process(name))
            process.name = name
            process.peak_bytes = max(process.peak_bytes, peak)
            process.cpu.append((now, stats[pid].cpu_seconds))
        return sorted(family)


@dataclass(frozen=True)
class _Stat:
    parent: int
    start: int
    cpu_seconds: float


def _stats() -> Iterator[tuple[int, _Stat]]:
    """What /proc/PID/stat says of every process (man 5 proc_pid_stat)."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError):
            text = Path("/proc", entry, "stat").read_text(encoding="ascii", errors="replace")
            fields = text.rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / TICKS
            yield int(entry), _Stat(int(fields[1]), int(fields[19]), cpu)


def _name(pid: int) -> str:
    """``aggregator`` or ``silo NAME`` by the title of a role, else a word for the helper."""
    try:
        title = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""
    if title.startswith(("fl aggregator", "fl silo")):
        return title.removeprefix("fl ").partition(" (")[0]
    for word in ("forkserver", "resource_tracker"):
        if word in title:
            return word.replace("_", " ")
    return "other"


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = [line.split()[1] for line in lines.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@contextmanager
def started(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in ``log``; it and what it started end with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with everything that it started."""

    def end(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


@dataclass(frozen=True)
class FlRun:
    """A finished ``fl run``."""

    folder: Path
    seconds: float
    """Of the whole process."""
    watch: Watch | None

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of its metrics.jsonl."""
        text = (self.folder / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def column(self, name: str, key: Callable[[dict[str, Any]], Any]) -> dict[Any, float | None]:
        """Values of the metric ``name`` by what ``key`` makes of their rows."""
        return {key(row): row["value"] for row in self.metrics() if row["name"] == name}


def run_fl(
    arguments: Sequence[str],
    folder: Path,
    watched: bool = False,
    environment: Mapping[str, str] | None = None,
) -> FlRun:
    """``fl run ARGUMENTS --out FOLDER``, to its end. Raises BenchmarkError when it fails."""
    command = [*fl(), "run", *arguments, "--out", str(folder)]
    log = folder.with_name(folder.name + ".log")
    start = time.perf_counter()
    with started(command, log, environment) as process:
        watch = Watch({process.pid: "fl"}) if watched else None
        try:
            process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BenchmarkError(f"fl run: no end after {TIMEOUT_SECONDS:.0f} s") from error
        finally:
            if watch is not None:
                watch.stop()
    seconds = time.perf_counter() - start
    if process.returncode:
        text = log.read_text(encoding="utf-8", errors="replace")
        raise BenchmarkError(f"fl run {' '.join(arguments)} ended {process.returncode}:\n{text}")
    return FlRun(folder, seconds, watch)
