"""What goes wrong in a run, as data: who, when, what. It knows nothing of what plays it.

A file looks like this; ``rules`` may be left out where a run file says them::

    rules: {silos: [north, south], rounds: 5, min_silos: 1, deadline: 30, grace: 5}
    faults:
    - {who: north, what: kill, at: 12.5, back: 4}
    - {who: aggregator, what: kill, round: 3, back: 2}
    - {who: south, what: corrupt, round: 2, how: nan}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fl_core import yaml_file
from fl_core.errors import SpecError
from fl_core.fields import field_error

AGGREGATOR = "aggregator"
What = Literal["kill", "stop", "cut", "flip", "delay", "corrupt", "readmit"]
How = Literal["garbage", "nan", "shape", "doubled", "stale", "raises"]
Below = Literal["end", "wait", "retry"]
_STRICT = ConfigDict(extra="forbid")
_SEE = "see docs/chaos.md"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, or that an operator does."""

    __pydantic_config__ = _STRICT

    who: str
    """A silo's name, or ``aggregator``."""
    what: What
    """``kill``: the process ends. ``stop``: it stands still (SIGSTOP). ``cut``: its connection
    breaks. ``flip``: a bit of what it sends next is changed on its way. ``delay``: what it sends
    and is sent takes ``by`` seconds longer. ``corrupt``: its next answers are wrong. ``readmit``:
    the operator lets it back."""
    at: float = 0.0
    """Seconds since the run began, or since ``round`` did."""
    round: int | None = None
    back: float | None = None
    """Seconds until it is over: the process is started again, goes on, can connect again, or
    messages are fast again. None: never."""
    by: float | None = None
    how: How | None = None
    """``garbage``: no arrays. ``nan``: not finite. ``shape``: of another form. ``doubled``: sent
    twice. ``stale``: said to be of the round before. ``raises``: no answer but an error."""
    times: int = 1
    """How many answers are corrupt."""

    def __post_init__(self) -> None:
        for name in ("at", "round", "back", "by"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}: must be finite and not negative")
        if (self.what == "corrupt") != (self.how is not None):
            raise ValueError(
                f"what is {self.what!r}, how is {self.how!r}: `how` says what corrupts"
            )
        if (self.what == "delay") != (self.by is not None):
            raise ValueError(
                f"what is {self.what!r}, by is {self.by!r}: `by` says how long a delay is"
            )
        if self.who == AGGREGATOR and self.what not in ("kill", "stop"):
            raise ValueError(f"what is {self.what!r}: the aggregator can be killed or stopped")
        if self.times < 1:
            raise ValueError(f"times is {self.times}: must be at least 1")


@dataclass(frozen=True)
class Rules:
    """How the run's rounds are held. Times are seconds."""

    __pydantic_config__ = _STRICT

    silos: tuple[str, ...]
    rounds: int
    min_silos: int
    """In an asynchronous run: updates that make a new state."""
    deadline: float
    grace: float | None = None
    below: Below = "end"
    retries: int = 3
    most_late: int = 0
    asynchronous: bool = False
    fraction: float = 1.0
    patience: float = 60.0
    enough: int | None = None
    """The round whose scores end the run early."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_silos <= len(self.silos):
            raise ValueError(f"min_silos is {self.min_silos}, but silos has {len(self.silos)}")
        if self.rounds < 1 or not 0 < self.fraction <= 1 or self.drawn < self.min_silos:
            raise ValueError("rounds, fraction and min_silos do not go together")
        if min(self.deadline, self.patience) <= 0:
            raise ValueError("deadline and patience must be over 0")

    @property
    def drawn(self) -> int:
        """How many silos train in a round, when all are there."""
        return math.ceil(self.fraction * len(self.silos) - 1e-9)


@dataclass(frozen=True)
class Schedule:
    """The faults of one run."""

    __pydantic_config__ = _STRICT

    faults: tuple[Fault, ...] = ()
    rules: Rules | None = None


def load(path: Path) -> Schedule:
    """Read a schedule. Raises SpecError naming file, line, field and value."""
    content, source = yaml_file.read(path, SpecError, "schedule", _SEE)
    try:
        return TypeAdapter(Schedule).validate_python(content)
    except ValidationError as error:
        raise field_error(error, content, source, SpecError, BaseModel, _SEE) from error


def save(schedule: Schedule, path: Path) -> None:
    """Write a schedule, as :func:`load` reads it."""
    path.write_text(as_yaml(schedule))


def as_yaml(schedule: Schedule) -> str:
    """The schedule's file: one line a fault, and only what is not the default."""
    content: dict[str, Any] = {}
    if schedule.rules is not None:
        content["rules"] = _said(schedule.rules)
    content["faults"] = [_said(fault) for fault in schedule.faults]
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=1000)


def _said(one: Fault | Rules) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(one)}
    plain = {name: value for name, value in asdict(one).items() if value != defaults[name]}
    return plain | ({"silos": list(one.silos)} if isinstance(one, Rules) else {})


def random_schedule(seed: int, rules: Rules | None = None) -> Schedule:
    """Faults that the seed draws, and the rules too where none are given."""
    random = Random(f"schedule {seed}")  # noqa: S311 - seeded on purpose
    rules = rules or random_rules(random)
    span = rules.rounds * min(rules.deadline, 20.0)
    count = random.choice((0, 1, 1, 2, 2, 3, 4, 6, 9))
    faults = [_random_fault(random, rules, span) for _ in range(count)]
    for silo in {fault.who for fault in faults if fault.what == "corrupt"}:
        if random.random() < 0.3:
            at = round(random.uniform(0, 2 * span), 2)
            faults.append(Fault(silo, "readmit", at))
    return Schedule(tuple(faults), rules)


def random_rules(random: Random) -> Rules:
    """Rules that do not contradict each other."""
    silos = tuple(f"silo-{i}" for i in range(random.randint(1, 8)))
    deadline = random.choice((8.0, 15.0, 30.0, 60.0, 120.0))
    common: dict[str, Any] = {
        "silos": silos,
        "rounds": random.randint(1, 12),
        "deadline": deadline,
        "patience": random.choice((3.0, 10.0, 60.0)),
        "enough": random.choice((None, None, None, random.randint(1, 12))),
    }
    if random.random() < 0.3:
        buffer = random.randint(1, len(silos))
        return Rules(
            **common,
            min_silos=buffer,
            below=random.choice(("end", "wait")),
            most_late=random.randint(1, 10),
            asynchronous=True,
        )
    fraction = random.choice((1.0, 1.0, 1.0, 0.5, 0.75))
    drawn = math.ceil(fraction * len(silos) - 1e-9)
    return Rules(
        **common,
        min_silos=random.randint(1, drawn),
        grace=random.choice((None, 0.5, 5.0, deadline)),
        below=random.choice(("end", "wait", "retry")),
        retries=random.randint(1, 3),
        most_late=random.choice((0, 0, 1, 3)),
        fraction=fraction,
    )


def _random_fault(random: Random, rules: Rules, span: float) -> Fault:
    if random.random() < 0.5:
        early = random.random() < 0.2
        when: dict[str, Any] = {"at": round(random.uniform(0, 3 if early else span), 2)}
    else:
        when = {"round": random.randint(1, rules.rounds), "at": round(random.uniform(0, 10), 2)}
    if random.random() < 0.2:
        what: What = random.choice(("kill", "kill", "stop"))
        return Fault(AGGREGATOR, what, **when, back=round(random.uniform(0.5, 40), 2))
    silo = random.choice(rules.silos)
    what = random.choice(("kill", "stop", "cut", "flip", "delay", "corrupt"))
    for_ever = random.random() < 0.35
    back = None if for_ever else round(random.choice((2, 20, 90)) * random.random(), 2)
    if what == "corrupt":
        how = random.choice(_HOW)
        return Fault(silo, what, **when, how=how, times=random.choice((1, 1, 2, 3, 5)))
    if what == "delay":
        return Fault(silo, what, **when, back=back, by=round(random.uniform(0.5, 25), 2))
    return Fault(silo, what, **when, back=back)


_HOW: Sequence[How] = ("garbage", "nan", "shape", "doubled", "stale", "raises")
