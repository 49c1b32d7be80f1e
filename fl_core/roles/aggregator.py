"""The aggregator: FedML's server, driven by the round engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from fl_core import metrics as scoring
from fl_core import rounds
from fl_core import state as states
from fl_core.errors import ERRORS, FlError, RoleError, UpdateError
from fl_core.files import write_atomic
from fl_core.job import Job
from fl_core.metrics import Scores, Value
from fl_core.model import Update
from fl_core.plugins import Plugins, blamed
from fl_core.preprocessing import Moments, Scaling
from fl_core.role import PATIENCE_SECONDS, RoleConfig, Tell
from fl_core.roles import communication as wire
from fl_core.roles.communication import Communication
from fl_core.roles.fedml import FedMLServerManager, Message, arguments
from fl_core.roles.silo import FAILED, MODEL, SCALING
from fl_core.runs import MODEL_FILE, PREPROCESSING_FILE, SCORES_FILE, preprocessing, score_counts
from fl_core.seeding import derive
from fl_core.tracking import local as names
from fl_core.tracking.local import MetricsFile
from fl_core.transport import channel
from fl_core.transport.frames import Frame
from fl_core.transport.server import Server

_log = logging.getLogger(__name__)
GOODBYE_SECONDS = 10.0
"""How long the aggregator waits for its silos to take the end of the run."""


class _Listening:
    """The aggregator's endpoint: a stream for each silo."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def send(self, peer: str, frame: Frame) -> None:
        self._server.send(peer, frame)

    def stop(self) -> None:
        self._server.stop(channel.STOP_SECONDS)


class Aggregator(FedMLServerManager):
    """Runs one federated training: the engine's commands become FedML messages."""

    def __init__(self, config: RoleConfig, job: Job, plugins: Plugins, tell: Tell) -> None:
        self._config = config
        self._spec = config.spec
        self._job = job
        self._model = f"model {config.spec.model.name!r}"
        self._strategy = f"strategy {config.spec.strategy.name!r}"
        self._plugins = plugins
        self._tell = tell
        self._silos = config.spec.silo_names
        self._ranks = {silo: rank for rank, silo in enumerate(self._silos, start=1)}
        self._by_rank = {rank: silo for silo, rank in self._ranks.items()}
        self._engine = rounds.Engine(
            self._silos, self._spec.rounds, self._select, PATIENCE_SECONDS, time.monotonic()
        )
        self._metrics = MetricsFile(config.folder / "metrics.jsonl", config.run_id)
        self._moments: dict[str, Moments] = {}
        self._rows: dict[str, dict[str, int]] = {}
        self._scaling: Scaling | None = None
        self._state: states.State = {}
        self._encoded: dict[bool, bytes] = {}
        self._told_scaling: set[str] = set()
        self._scores: dict[str, tuple[Scores, Scores]] = {}
        self._losses: dict[str, tuple[float, int]] = {}
        self._final: dict[str, tuple[Scores, Scores]] = {}
        self._round_start = 0.0
        self._aggregate_seconds = 0.0
        self._error: FlError | None = None
        self._goodbye: float | None = None
        self._gone: set[str] = set()
        args = arguments(config.run_id, 0, len(self._silos), self._spec.rounds)
        super().__init__(args, None, client_rank=0, client_num=len(self._silos), backend="fl_core")

    def _init_manager(self) -> None:
        limit = self._spec.max_state_bytes
        self.com_manager = Communication(
            self._ranks,
            frozenset({wire.STATUS, wire.SUMS, wire.UPDATE, wire.SCORES}),
            limit,
            wait=self._wait,
        )
        self.com_manager.add_observer(self)
        self._server = Server(
            self._config.identity,
            self._config.federation,
            self._silos,
            self._config.run_id,
            limit,
            self.com_manager.take,
        )
        self.com_manager.endpoint = _Listening(self._server)

    def listen(self) -> None:
        """Open the port and say which it is. Raises TransportError when it is taken."""
        port = self._server.start(self._config.host, self._config.port)
        self._tell({"event": "listening", "port": port})

    def register_message_receive_handlers(self) -> None:
        """FedML's own messages, and this project's."""
        super().register_message_receive_handlers()
        for kind, handler in (
            (wire.SUMS, self._take_sums),
            (wire.SCORES, self._take_scores),
            (wire.LEFT, self._left),
            (wire.TICK, lambda message: self._advance(rounds.Tick())),
        ):
            self.register_message_receive_handler(kind, handler)

    def _wait(self) -> float | None:
        deadline = self._goodbye if self._goodbye is not None else self._engine.deadline
        return None if deadline is None else deadline - time.monotonic()

    # What silos say

    def handle_message_connection_ready(self, msg_params: Message) -> None:
        """A stream stands; the silo speaks first."""

    def process_online_status(self, client_status: str, msg_params: Message) -> None:
        """A silo is ready, for the first time or again."""
        silo = self._sender(msg_params)
        self._told_scaling.discard(silo)
        self._tell({"event": "joined", "silo": silo})
        self._advance(rounds.Joined(silo))

    def handle_message_client_status_update(self, msg_params: Message) -> None:
        """FedML's statuses, and that a silo cannot go on."""
        if msg_params.get("client_status") == FAILED:
            silo = self._sender(msg_params)
            code = msg_params.get_params().get("code")
            title = ERRORS[code].title if isinstance(code, int) and code in ERRORS else "unknown"
            self._refuse(silo, RoleError(f"silo {silo!r} failed: {title}", "see the silo's log"))
        else:
            super().handle_message_client_status_update(msg_params)

    def process_finished_status(self, client_status: str, msg_params: Message) -> None:
        """A silo has taken the end of the run."""
        self._depart(self._sender(msg_params))

    def _left(self, message: Message) -> None:
        silo, reason = self._sender(message), str(message.get("reason"))
        if self._goodbye is not None:
            self._depart(silo)
        elif message.get("refused"):
            self._refuse(silo, UpdateError(f"silo {silo!r}: {reason}", "see the silo's log"))
        else:
            _log.warning("silo %s left: %s", silo, reason)
            self._tell({"event": "left", "silo": silo, "reason": reason})
            self._advance(rounds.Left(silo, reason))

    def _take_sums(self, message: Message) -> None:
        silo = self._sender(message)
        if not self._engine.wants(rounds.Summed, silo):
            return
        try:
            width = len(self._job.schema.features)
            self._moments[silo] = Moments.from_state(self._arrays(message, silo), width, silo)
            self._rows[silo] = _rows(message.get("rows"), silo)
        except UpdateError as error:
            self._refuse(silo, error)
            return
        self._advance(rounds.Summed(silo))

    def handle_message_receive_model_from_client(self, msg_params: Message) -> None:
        """Take an update into the strategy, once, if it can be combined."""
        params = msg_params.get_params()
        silo, round = self._sender(msg_params), params[wire.ROUND]
        if not self._engine.wants(rounds.Updated, silo, round):
            return
        try:
            loss, seconds = (_positive(params.get(key), silo) for key in ("loss", "seconds"))
            weight = params.get("weight")
            if not isinstance(weight, int) or not 1 <= weight <= self._rows[silo]["train"]:
                raise UpdateError(
                    f"weight {weight!r} is not 1 to {self._rows[silo]['train']}, its training rows",
                    "the weight of an update is the number of rows that it was trained on",
                )
            arrays = self._arrays(msg_params, silo)
            states.check_finite(arrays, "update")
            update = Update(arrays, weight, {"loss": loss})
            with blamed(f"{self._strategy} in check, round {round},"):
                self._job.strategy.check(update)
            with blamed(f"{self._model} in check_update, round {round},"):
                self._job.model.check_update(update)
        except UpdateError as error:
            named = UpdateError(f"silo {silo!r}, round {round}: {error.message}", error.remedy)
            self._refuse(silo, named)
            return
        start = time.perf_counter()
        with blamed(f"{self._strategy} in add, round {round},"):
            self._job.strategy.add(silo, update)
        self._aggregate_seconds += time.perf_counter() - start
        self._losses[silo] = (loss, weight)
        self._log(silo, round, names.TRAINING_LOSS, Value(loss))
        self._log(silo, round, names.FIT_SECONDS, Value(seconds))
        self._log(silo, round, names.BYTES_UP, Value(float(params[wire.BYTES])))
        self._tell({"event": "updated", "silo": silo, "round": round, "loss": loss})
        self._advance(rounds.Updated(silo, round))

    def _take_scores(self, message: Message) -> None:
        params = message.get_params()
        silo, round = self._sender(message), params[wire.ROUND]
        if not self._engine.wants(rounds.Scored, silo, round):
            return
        try:
            arrays = self._arrays(message, silo)
            parts = {part: Scores.from_state(arrays, part, silo) for part in ("validation", "test")}
            for part, scores in parts.items():
                if scores.count != self._rows[silo][part]:
                    raise UpdateError(
                        f"silo {silo!r}, round {round}: scores of {scores.count} {part} rows, "
                        f"not {self._rows[silo][part]}",
                        "see the silo's log",
                    )
            seconds = _positive(params.get("seconds"), silo)
        except UpdateError as error:
            self._refuse(silo, error)
            return
        self._scores[silo] = (parts["validation"], parts["test"])
        self._log(silo, round, names.SCORE_SECONDS, Value(seconds))
        self._advance(rounds.Scored(silo, round))

    # What the engine wants

    def _advance(self, event: rounds.Event) -> None:
        if self._goodbye is not None:
            if time.monotonic() >= self._goodbye:
                _log.warning("silos that took no leave: %s", set(self._silos) - self._gone)
                self.finish()
            return
        for command in self._engine.handle(event, time.monotonic()):
            self._execute(command)

    def _execute(self, command: rounds.Command) -> None:
        match command:
            case rounds.AskSums(silos):
                for silo in silos:
                    self.send_message(wire.message(wire.ASK_SUMS, 0, self._ranks[silo]))
            case rounds.Prepare():
                self._prepare()
            case rounds.Begin(round):
                self._begin(round)
            case rounds.SendState(round, silos, fit):
                for silo in silos:
                    self._send_state(silo, round, silo in fit)
            case rounds.Aggregate(round):
                self._aggregate(round)
            case rounds.Report(round):
                self._report(round)
            case rounds.Complete():
                self._complete()
            case rounds.Abort(silo, reason):
                self._error = self._error or RoleError(
                    f"silo {silo!r}: {reason}", "see the silo's log, or leave the silo out"
                )
                self._take_leave()

    def _select(self, round: int, silos: Sequence[str]) -> Sequence[str]:
        with blamed(f"{self._strategy} in select, round {round},"):
            chosen = self._job.strategy.select(round, silos)
            if not chosen or not set(chosen) <= set(silos):
                raise ValueError(f"chose {chosen!r} of {silos!r}")
        return chosen

    def _prepare(self) -> None:
        ordered = [self._moments[silo] for silo in self._silos]
        self._scaling = Scaling.pooled(ordered)
        with blamed(f"{self._model} in initial_state"):
            self._state = self._job.model.initial_state(derive(self._spec.seed, "init"))
        states.check_finite(self._state, f"initial state of {self._model}")
        self._tell({"event": "rows", "rows": {silo: self._rows[silo] for silo in self._silos}})

    def _begin(self, round: int) -> None:
        self._plugins.call("before_round", run_id=self._config.run_id, round=round)
        self._encoded = {}
        self._aggregate_seconds = 0.0
        self._losses = {}
        with blamed(f"{self._strategy} in start, round {round},"):
            self._job.strategy.start(self._state)
        self._round_start = time.perf_counter()
        self._tell({"event": "round", "round": round, "rounds": self._spec.rounds})

    def _send_state(self, silo: str, round: int, fit: bool) -> None:
        with_scaling = silo not in self._told_scaling
        encoded = self._encode(with_scaling)
        options = dict(self._job.strategy.fit_options())
        params = {wire.ROUND: round, wire.ARRAYS: encoded, "fit": fit, "options": options}
        self.send_message(wire.message(wire.STATE, 0, self._ranks[silo], **params))
        self._told_scaling.add(silo)
        self._log(silo, round, names.BYTES_DOWN, Value(float(len(encoded))))
        self._tell({"event": "sent", "silo": silo, "round": round, "fit": fit})

    def _encode(self, with_scaling: bool) -> bytes:
        """The state as it travels, encoded once for all silos."""
        if with_scaling not in self._encoded:
            arrays = {MODEL + name: array for name, array in self._state.items()}
            if with_scaling:
                assert self._scaling is not None
                arrays |= {SCALING + name: a for name, a in self._scaling.as_state().items()}
            encoded = states.encode(arrays)
            if len(encoded) > self._spec.max_state_bytes:
                raise UpdateError(
                    f"{self._model}: state of {len(encoded)} bytes is over the "
                    f"limit of {self._spec.max_state_bytes}",
                    "raise max_state_bytes in the run file, or make the model smaller",
                )
            self._encoded[with_scaling] = encoded
        return self._encoded[with_scaling]

    def _aggregate(self, round: int) -> None:
        start = time.perf_counter()
        with blamed(f"{self._strategy} in finish, round {round},"):
            self._state = self._job.strategy.finish()
        self._encoded = {}
        end = time.perf_counter()
        self._aggregate_seconds += end - start
        states.check_finite(self._state, f"aggregated state of round {round}")
        weight = sum(weight for _, weight in self._losses.values())
        loss = sum(self._losses[silo][0] * self._losses[silo][1] for silo in sorted(self._losses))
        self._log(None, round, names.TRAINING_LOSS, Value(loss / weight))
        self._log(None, round, names.ROUND_SECONDS, Value(end - self._round_start))
        self._log(None, round, names.AGGREGATE_SECONDS, Value(self._aggregate_seconds))

    def _report(self, round: int) -> None:
        pooled = [
            Scores.pooled(self._scores[silo][part] for silo in self._silos) for part in (0, 1)
        ]
        for silo in self._silos:
            self._log_scores(silo, round, *self._scores[silo])
        figures = self._log_scores(None, round, *pooled)
        self._final, self._scores = self._scores, {}
        _log.info("round %d: %s", round, figures)
        self._tell({"event": "scored", "round": round, "figures": figures})
        run_id = self._config.run_id
        self._plugins.call("after_round", run_id=run_id, round=round, metrics=figures)

    def _log_scores(
        self, silo: str | None, round: int, validation: Scores, test: Scores
    ) -> dict[str, float | None]:
        figures = {
            names.VALIDATION_AUC: validation.auc(),
            names.TEST_AUC: test.auc(),
            names.TEST_LOSS: test.loss(),
            names.TEST_ACCURACY: test.accuracy(),
        }
        for name, value in figures.items():
            self._log(silo, round, name, value)
        return {name: value.number for name, value in figures.items()}

    def _complete(self) -> None:
        folder = self._config.folder
        assert self._scaling is not None
        write_atomic(folder / MODEL_FILE, states.encode(self._state))
        write_atomic(folder / PREPROCESSING_FILE, preprocessing(self._job.schema, self._scaling))
        tests = {silo: scores[1] for silo, scores in self._final.items()}
        write_atomic(folder / SCORES_FILE, score_counts(tests))
        with blamed(f"{self._model} in export"):
            exported = self._job.model.export(self._state)
        for name, content in exported.items():
            write_atomic(folder / name, content)
        self._take_leave()

    def _take_leave(self) -> None:
        """Tell every silo that the run is over; the end comes when all have answered."""
        self._goodbye = time.monotonic() + GOODBYE_SECONDS
        for silo in self._silos:
            self.send_message_finish(self._ranks[silo], 0)

    def _depart(self, silo: str) -> None:
        self._gone.add(silo)
        if self._goodbye is not None and self._gone == set(self._silos):
            self.finish()

    def _refuse(self, silo: str, error: FlError) -> None:
        _log.error("%s", error.message)
        self._gone.add(silo)
        self._error = self._error or error
        self._advance(rounds.Failed(silo, error.message))

    def finish(self) -> None:
        """End the loop and the streams."""
        self.com_manager.stop_receive_message()

    def close(self) -> None:
        """Close the metrics file. Raises the error that ended the run, if one did."""
        self._metrics.close()
        if self._error is not None:
            raise self._error

    def _arrays(self, message: Message, silo: str) -> states.State:
        try:
            return self.com_manager.arrays(message)
        except UpdateError as error:
            raise UpdateError(f"silo {silo!r}: {error.message}", error.remedy) from error

    def _sender(self, message: Message) -> str:
        return self._by_rank[message.get_sender_id()]

    def _log(self, silo: str | None, round: int, name: str, value: Value) -> None:
        self._metrics.log("aggregator" if silo is None else "silo", silo, round, name, value)


def _positive(value: Any, silo: str) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < scoring.HUGE:
        raise UpdateError(f"silo {silo!r} sent the figure {value!r}", "see the silo's log")
    return float(value)


def _rows(value: Any, silo: str) -> dict[str, int]:
    parts = ("train", "validation", "test")
    if isinstance(value, dict) and all(
        isinstance(value.get(part), int) and 0 <= value[part] < 2**40 for part in parts
    ):
        return {part: value[part] for part in parts}
    raise UpdateError(f"silo {silo!r} sent no valid numbers of rows", "see the silo's log")


def run(config: RoleConfig, job: Job, plugins: Plugins, tell: Tell) -> None:
    """Run a training as its aggregator, to the end. Raises FlError."""
    aggregator = Aggregator(config, job, plugins, tell)
    try:
        aggregator.listen()
        aggregator.run()
    except BaseException:
        aggregator.finish()
        raise
    aggregator.close()
