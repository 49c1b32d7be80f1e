"""Seeded schedules on real processes, several runs at once.

``python -m tests.chaos.processes --seeds 0:500`` plays as many.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fl_core import local
from fl_core import plugins as plugin_loader
from fl_core.chaos import run as chaotic
from fl_core.chaos.schedule import Schedule, as_yaml
from fl_core.chaos.supervisor import Chaos
from fl_core.job import resolve
from fl_core.spec import RunSpec
from fl_core.yaml_file import SpecSource
from tests.chaos import tiny

HOSPITALS = ("cleveland", "hungary", "switzerland", "va-long-beach")
AT_ONCE = 5
LEAST_DEADLINE = 4.0
"""Seconds."""


@dataclass
class Played:
    """A run that was played to its end."""

    schedule: Schedule
    folder: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    """As they were told, each with the time ``at`` which it was."""
    ending: chaotic.Ending | None = None

    def on_event(self, event: dict[str, Any]) -> None:
        """Take in an event."""
        self.events.append({**event, "at": time.monotonic()})

    def at(self, name: str) -> float:
        """When the first event of that name was told."""
        return next(event["at"] for event in self.events if event["event"] == name)

    def told(self) -> str:
        """What is needed to look into it, and to play it again."""
        start = self.events[0]["at"]
        events = [f"{e['at'] - start:.2f} {e}" for e in self.events if e["event"] != "sent"]
        return "\n".join((str(self.ending), as_yaml(self.schedule), *events))


def spec(**changes: Any) -> RunSpec:
    """A run of three silos in short rounds, with ``changes``."""
    base = {
        "name": "chaos",
        "dataset": {"name": "heart-disease"},
        "silos": HOSPITALS[:3],
        "model": {"name": "chaos-tiny", "params": {"seconds": 0.05}},
        "strategy": {"name": "fedavg"},
        "rounds": 5,
        "quorum": {"deadline": 60},
    }
    return RunSpec.model_validate(base | changes)


def random_spec(seed: int, deadline: float) -> RunSpec:
    """A run that the seed draws."""
    random = Random(f"run {seed}")
    silos = random.sample(HOSPITALS, random.choice((2, 3, 3, 4)))
    quorum: dict[str, Any] = {"deadline": deadline, "below": random.choice(("end", "end", "wait"))}
    changes: dict[str, Any] = {
        "silos": silos,
        "rounds": random.randint(3, 6),
        "model": {"name": "chaos-tiny", "params": {"seconds": random.choice((0, 0.05, 0.2))}},
        "strategy": {"name": random.choice(("fedavg", "fedavg", "fedavgm", "fedadam"))},
        "keep_best": random.choice((None, None, "loss")),
        "seed": seed,
        "quorum": quorum,
    }
    if random.random() < 0.25:
        return spec(**changes, asynchronous={"buffer": random.randint(1, len(silos) - 1)})
    quorum["below"] = random.choice(("end", "end", "retry", "retry", "wait"))
    if quorum["below"] == "retry":
        quorum["retries"] = 1
    quorum["grace"] = random.choice((0.3, 0.3, 1.0, None))
    quorum["min_silos"] = random.randint(1, len(silos))
    if random.random() < 0.3:
        changes["late_updates"] = {"most": random.choice((1, 5))}
    return spec(**changes)


def play(
    run_spec: RunSpec,
    schedule: Schedule,
    folder: Path,
    chaos: Callable[..., Chaos] = Chaos,
) -> Played:
    """Play a schedule on a run in ``folder``, which is made."""
    plugins = plugin_loader.load()
    job = resolve(run_spec, SpecSource("run file", {}), plugins, folder.parent)
    played = Played(schedule, folder)
    played.ending = chaotic.run(
        job, plugins, folder.name, folder, folder.parent, schedule, played.on_event, chaos
    )
    return played


def play_seeds(
    seeds: Sequence[int], folder: Path, prefix: str = ""
) -> Iterator[tuple[int, Played]]:
    """Play the runs and the schedules of many seeds, several at once, below ``folder``.

    ``prefix`` is what the runs' ids begin with.
    """
    deadline = _deadline(folder, prefix)

    def play_seed(seed: int) -> Played:
        run_spec = random_spec(seed, deadline)
        schedule = chaotic.drawn(seed, run_spec)
        return play(run_spec, schedule, folder / f"{prefix}seed-{seed}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from zip(seeds, pool.map(play_seed, seeds), strict=True)


_measured: list[float] = []


def _deadline(folder: Path, prefix: str) -> float:
    """Seconds in which silos can start on this machine, as busy as it is with all these runs."""
    if not _measured:
        folders = [folder / f"{prefix}measured-{i}" for i in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = list(pool.map(lambda one: play(spec(), Schedule(), one), folders))
        _measured.append(max(run.at("rows") - run.at("listening") for run in runs))
    return max(LEAST_DEADLINE, 3 * _measured[0])


def main(arguments: Sequence[str]) -> int:
    """Play many seeds; say how they ended, and print the schedule of one that breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.processes", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="from:to")
    first, last = (int(part) for part in parser.parse_args(arguments).seeds.split(":"))
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        tiny.install(Path(name, "site"))
        sys.path.insert(0, str(Path(name, "site")))
        local.warm_up()
        play(spec(), Schedule(), Path(name, "first"))  # while what roles are forked from starts
        for seed, played in play_seeds(range(first, last), Path(name)):
            assert played.ending is not None
            ends[played.ending.end] += 1
            if not played.ending.promised:
                print(f"seed {seed}: {played.told()}")
    print(f"{last - first} seeds: {dict(ends)}")
    return 1 if ends[chaotic.BROKEN] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
