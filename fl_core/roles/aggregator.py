"""The aggregator: FedML's server, driven by the round engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from fl_core import rounds
from fl_core import state as states
from fl_core.errors import ERRORS, FlError, RoleError, UpdateError
from fl_core.files import write_atomic
from fl_core.job import Job
from fl_core.plugins import Plugins, blamed, described
from fl_core.preprocessing import Scaling
from fl_core.role import PATIENCE_SECONDS, RoleConfig, Tell
from fl_core.roles import answers
from fl_core.roles import communication as wire
from fl_core.roles.communication import Communication
from fl_core.roles.fedml import FedMLServerManager, Message, arguments
from fl_core.roles.scoreboard import Scoreboard
from fl_core.runs import (
    MODEL_FILE,
    PREPROCESSING_FILE,
    SCORES_FILE,
    preprocessing,
    score_counts,
)
from fl_core.seeding import derive
from fl_core.tracking.parameters import sizes
from fl_core.tracking.part import Record
from fl_core.transport import channel
from fl_core.transport.frames import Frame
from fl_core.transport.server import Server

_log = logging.getLogger(__name__)
_LOG = "see the silo's log"
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

    def __init__(
        self, config: RoleConfig, job: Job, plugins: Plugins, tell: Tell, record: Record
    ) -> None:
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
        self._record = record
        self._board = Scoreboard(record, self._silos)
        self._sums: dict[str, answers.Sums] = {}
        self._scaling: Scaling | None = None
        self._state: states.State = {}
        self._encoded: dict[bool, bytes] = {}
        self._told_scaling: set[str] = set()
        self._error: FlError | None = None
        self._goodbye: float | None = None
        self._gone: set[str] = set()
        self._ready: set[str] = set()
        """Silos that have said so on the stream that stands."""
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
            frozenset(self._silos).__contains__,
            len(self._silos),
            self._config.run_id,
            limit,
            self.com_manager.take,
            excluded=self._config.excluded,
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

    def receive_message(self, msg_type: int, msg_params: Message) -> None:
        """Handle a message. What is foreseen ends in an FlError; the rest is named by its silo."""
        try:
            super().receive_message(msg_type, msg_params)
        except FlError:
            raise
        except Exception as error:
            silo = self._by_rank.get(msg_params.get_sender_id())
            _log.exception("message of kind %s from silo %r", msg_type, silo)
            raise FlError(
                f"aggregator: message of kind {msg_type} from silo {silo!r} could not be handled: "
                f"{described(error.__context__ or error):.300}",
                "this is a bug of fl-core, or the silo runs something else; see log.txt",
            ) from error

    def handle_message_connection_ready(self, msg_params: Message) -> None:
        """A stream stands; the silo speaks first."""
        self._ready.discard(self._sender(msg_params))

    def process_online_status(self, client_status: str, msg_params: Message) -> None:
        """A silo is ready, for the first time or again."""
        silo = self._sender(msg_params)
        if silo in self._ready:
            self._refuse(silo, 0, UpdateError("said twice on one stream that it is ready", _LOG))
            return
        self._ready.add(silo)
        self._told_scaling.discard(silo)
        self._tell({"event": "joined", "silo": silo})
        self._advance(rounds.Joined(silo))

    def handle_message_client_status_update(self, msg_params: Message) -> None:
        """FedML's statuses, and that a silo cannot go on."""
        params = msg_params.get_params()
        silo, status = self._sender(msg_params), params.get("client_status")
        if status == wire.FAILED:
            code = params.get("code")
            title = ERRORS[code].title if isinstance(code, int) and code in ERRORS else "unknown"
            self._refuse(silo, 0, RoleError(f"failed: {title}", _LOG))
        elif status in (self.ONLINE_STATUS_FLAG, self.RUN_FINISHED_STATUS_FLAG):
            super().handle_message_client_status_update(msg_params)
        else:
            self._refuse(silo, 0, UpdateError(f"sent the status {status!r:.80}", _LOG))

    def process_finished_status(self, client_status: str, msg_params: Message) -> None:
        """A silo has taken the end of the run."""
        self._depart(self._sender(msg_params))

    def _left(self, message: Message) -> None:
        silo, reason = self._sender(message), str(message.get("reason"))
        if self._goodbye is not None:
            self._depart(silo)
        elif message.get("refused"):
            self._refuse(silo, 0, UpdateError(reason, _LOG))
        else:
            _log.warning("silo %s left: %s", silo, reason)
            self._tell({"event": "left", "silo": silo, "reason": reason})
            self._advance(rounds.Left(silo, reason))

    def _take_sums(self, message: Message) -> None:
        silo = self._sender(message)
        if not self._engine.wants(rounds.Summed, silo):
            return
        try:
            arrays = self.com_manager.arrays(message)
            self._sums[silo] = answers.sums(message.get_params(), arrays, self._job.schema)
        except UpdateError as error:
            self._refuse(silo, 0, error)
            return
        self._advance(rounds.Summed(silo))

    def handle_message_receive_model_from_client(self, msg_params: Message) -> None:
        """Take an update into the strategy, once, if it can be combined."""
        params = msg_params.get_params()
        silo, round = self._sender(msg_params), params[wire.ROUND]
        if not self._engine.wants(rounds.Updated, silo, round):
            return
        try:
            arrays = self.com_manager.arrays(msg_params)
            answer = answers.trained(params, arrays, self._sums[silo].rows)
            with blamed(f"{self._strategy} in check, round {round},"):
                self._job.strategy.check(answer.update)
            with blamed(f"{self._model} in check_update, round {round},"):
                self._job.model.check_update(answer.update)
        except UpdateError as error:
            self._refuse(silo, round, error)
            return
        start = time.perf_counter()
        with blamed(f"{self._strategy} in add, round {round},"):
            self._job.strategy.add(silo, answer.update)
        seconds = time.perf_counter() - start
        self._board.trained(silo, round, answer, params[wire.BYTES], seconds)
        self._tell({"event": "updated", "silo": silo, "round": round, "loss": answer.loss})
        self._advance(rounds.Updated(silo, round))

    def _take_scores(self, message: Message) -> None:
        params = message.get_params()
        silo, round = self._sender(message), params[wire.ROUND]
        if not self._engine.wants(rounds.Scored, silo, round):
            return
        try:
            arrays = self.com_manager.arrays(message)
            answer = answers.scored(params, arrays, self._sums[silo].rows)
        except UpdateError as error:
            self._refuse(silo, round, error)
            return
        self._board.scored(silo, round, answer)
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
        self._scaling = Scaling.pooled(self._sums[silo].moments for silo in self._silos)
        with blamed(f"{self._model} in initial_state"):
            self._state = self._job.model.initial_state(derive(self._spec.seed, "init"))
        states.check_finite(self._state, f"initial state of {self._model}")
        rows = {silo: self._sums[silo].rows for silo in self._silos}
        self._tell({"event": "rows", "rows": rows})
        kinds = rows[self._silos[0]]
        self._record.add(sizes({kind: sum(one[kind] for one in rows.values()) for kind in kinds}))

    def _begin(self, round: int) -> None:
        self._plugins.call("before_round", run_id=self._config.run_id, round=round)
        with blamed(f"{self._strategy} in start, round {round},"):
            self._job.strategy.start(self._state)
        self._board.begin()
        self._tell({"event": "round", "round": round, "rounds": self._spec.rounds})

    def _send_state(self, silo: str, round: int, fit: bool) -> None:
        with_scaling = silo not in self._told_scaling
        encoded = self._encode(with_scaling)
        params = {wire.ROUND: round, wire.ARRAYS: encoded, "fit": fit}
        self.send_message(wire.message(wire.STATE, 0, self._ranks[silo], params))
        self._told_scaling.add(silo)
        self._board.sent(silo, round, len(encoded))
        self._tell({"event": "sent", "silo": silo, "round": round, "fit": fit})

    def _encode(self, with_scaling: bool) -> bytes:
        """The state as it travels, encoded once for all silos."""
        if with_scaling not in self._encoded:
            arrays = {wire.MODEL + name: array for name, array in self._state.items()}
            if with_scaling:
                assert self._scaling is not None
                arrays |= {wire.SCALING + name: a for name, a in self._scaling.as_state().items()}
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
        states.check_finite(self._state, f"aggregated state of round {round}")
        self._board.aggregated(round, time.perf_counter() - start)

    def _report(self, round: int) -> None:
        figures = self._board.report(round)
        _log.info("round %d: %s", round, figures)
        self._tell({"event": "scored", "round": round, "figures": figures})
        run_id = self._config.run_id
        self._plugins.call("after_round", run_id=run_id, round=round, metrics=figures)

    def _complete(self) -> None:
        folder = self._config.folder
        assert self._scaling is not None
        write_atomic(folder / MODEL_FILE, states.encode(self._state))
        write_atomic(folder / PREPROCESSING_FILE, preprocessing(self._job.schema, self._scaling))
        write_atomic(folder / SCORES_FILE, score_counts(self._board.final_tests))
        with blamed(f"{self._model} in export"):
            exported = self._job.model.export(self._state)
            for name in exported:
                if name != Path(name).name or name.startswith(".") or (folder / name).exists():
                    raise ValueError(f"export of a file named {name!r}")
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

    def _refuse(self, silo: str, round: int, error: FlError) -> None:
        """End the run, since what a silo sent cannot be used; round 0 is before the first."""
        place = f"silo {silo!r}, round {round}" if round else f"silo {silo!r}"
        named = type(error)(f"{place}: {error.message}", error.remedy)
        _log.error("%s", named.message)
        self._gone.add(silo)
        self._error = self._error or named
        self._advance(rounds.Failed(silo, named.message))

    def finish(self) -> None:
        """End the loop and the streams."""
        self.com_manager.stop_receive_message()

    def check(self) -> None:
        """Raise the error that ended the run, if one did."""
        if self._error is not None:
            raise self._error

    def _sender(self, message: Message) -> str:
        return self._by_rank[message.get_sender_id()]


def run(config: RoleConfig, job: Job, plugins: Plugins, tell: Tell, record: Record) -> None:
    """Run a training as its aggregator, to the end. Raises FlError."""
    aggregator = Aggregator(config, job, plugins, tell, record)
    try:
        aggregator.listen()
        aggregator.run()
    except BaseException:
        aggregator.finish()
        raise
    aggregator.check()
