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
INTERVAL_SECONDS = 0.25
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
    """Looks at processes and all their descendants, several times a second, until stopped.

    What was once a descendant stays one, also after its parent has ended; and so is what is in
    the session of a first process, as :func:`started` gives each.
    """

    def __init__(
        self,
        roots: Mapping[int, str],
        name: Callable[[str], str | None],
        shared: bool = False,
    ) -> None:
        """Look at ``roots``, which are names by process id.

        ``name`` gives a descendant's name by its command line; where it gives None, a descendant
        is called as its parent is. ``shared``: weigh shared pages too, which takes longer.
        """
        self._roots = roots
        self._name = name
        self._shared = shared
        self._seen: dict[tuple[int, int], Process] = {}
        self._together: dict[str, int] = {}
        self.peak_shared_bytes = 0
        """Most memory of all processes together, a page that several share counted once."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def end_all(self) -> None:
        """End whatever is left of what was seen, and look no more."""
        self.stop()
        for stat in _stats():
            if stat.key in self._seen:
                with suppress(ProcessLookupError):
                    os.kill(stat.pid, signal.SIGKILL)

    def processes(self) -> list[Process]:
        """All that were seen, the first started first."""
        return [self._seen[key] for key in sorted(self._seen, key=lambda key: key[1])]

    def peaks(self) -> dict[str, int]:
        """Bytes by name: the most that processes of that name had had, of those there at once."""
        return dict(self._together)

    def _run(self) -> None:
        next_shared = 0.0
        while not self._stop.wait(INTERVAL_SECONDS):
            pids = self._look()
            if self._shared and time.monotonic() >= next_shared:
                shared = sum(_proportional_bytes(pid) for pid in pids)
                self.peak_shared_bytes = max(self.peak_shared_bytes, shared)
                next_shared = time.monotonic() + SHARED_INTERVAL_SECONDS

    def _look(self) -> list[int]:
        stats = {stat.pid: stat for stat in _stats()}
        family = {
            pid: self._roots[stat.session]
            for pid, stat in stats.items()
            if stat.session in self._roots
        }
        family |= {pid: name for pid, name in self._roots.items() if pid in stats}
        family |= {
            pid: self._seen[stat.key].name for pid, stat in stats.items() if stat.key in self._seen
        }
        grown = True
        while grown:
            more = {
                pid: family[stat.parent]
                for pid, stat in stats.items()
                if pid not in family and stat.parent in family
            }
            grown = bool(more)
            family |= more
        now = time.time()
        together: dict[str, int] = {}
        for pid, inherited in family.items():
            name, peak = self._roots.get(pid) or self._named(pid, inherited), _peak_bytes(pid)
            if not name or not peak:
                continue
            process = self._seen.setdefault(stats[pid].key, Process(name))
            process.name = name
            process.peak_bytes = max(process.peak_bytes, peak)
            process.cpu.append((now, stats[pid].cpu_seconds))
            if len(process.cpu) > 1:  # between fork and exec a process is its parent's image
                together[name] = together.get(name, 0) + process.peak_bytes
        for name, peak in together.items():
            self._together[name] = max(self._together.get(name, 0), peak)
        return sorted(family)

    def _named(self, pid: int, inherited: str) -> str | None:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            return None
        return self._name(title.decode(errors="replace")) or inherited


@dataclass(frozen=True)
class _Stat:
    pid: int
    parent: int
    session: int
    start: int
    cpu_seconds: float

    @property
    def key(self) -> tuple[int, int]:
        """What no later process shares."""
        return self.pid, self.start


def _stats() -> Iterator[_Stat]:
    """What /proc/PID/stat says of every process (man 5 proc_pid_stat)."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError):
            text = Path("/proc", entry, "stat").read_text(encoding="ascii", errors="replace")
            fields = text.rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / TICKS
            yield _Stat(int(entry), int(fields[1]), int(fields[3]), int(fields[19]), cpu)


def role_name(title: str) -> str:
    """``aggregator`` or ``silo NAME`` by the title of a role, else a word for the helper."""
    if title.startswith(("fl aggregator", "fl silo")):
        return title.removeprefix("fl ").partition(" (")[0]
    for word in ("forkserver", "resource_tracker"):
        if word in title:
            return word.replace("_", " ")
    return "other"


def as_parent(title: str) -> None:
    """Every process is called as its parent is."""
    return None


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
    started: float
    """Seconds since 1970, when the command was given."""

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
    shared: bool = False,
) -> FlRun:
    """``fl run ARGUMENTS --out FOLDER``, to its end. Raises BenchmarkError when it fails."""
    command = [*fl(), "run", *arguments, "--out", str(folder)]
    log = folder.with_name(folder.name + ".log")
    began, start = time.time(), time.perf_counter()
    with started(command, log, environment) as process:
        watch = Watch({process.pid: "fl"}, role_name, shared) if watched else None
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
    return FlRun(folder, seconds, watch, began)
