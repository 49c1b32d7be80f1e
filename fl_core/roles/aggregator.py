"""The aggregator: FedML's server, driven by the round engine."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from fl_core import checkpoint, rounds
from fl_core import state as states
from fl_core.best import Best
from fl_core.buffers import Buffers
from fl_core.errors import ERRORS, FlError, RoleError, UpdateError
from fl_core.files import storing, write_atomic
from fl_core.job import Job
from fl_core.metrics import Scores
from fl_core.plugins import Plugins, blamed, described
from fl_core.preprocessing import Scaling
from fl_core.role import Order, Orders, RoleConfig, Tell
from fl_core.roles import answers, position
from fl_core.roles import communication as wire
from fl_core.roles.communication import Communication
from fl_core.roles.fedml import FedMLServerManager, Message, arguments
from fl_core.roles.participation import rules, select
from fl_core.roles.position import Position
from fl_core.roles.scoreboard import Scoreboard
from fl_core.runs import (
    MODEL_FILE,
    PREPROCESSING_FILE,
    ROUNDS_FILE,
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

    def send(self, peer: str, frame: Frame, soon: bool) -> None:
        self._server.send(peer, frame)  # one at a time: no other one follows soon

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
        self._record = record
        self._board = Scoreboard(record)
        self._best = Best(config.spec)
        self._best_tests: dict[str, Scores] = {}
        self._sums: dict[str, answers.Sums] = {}
        self._scaling: Scaling | None = None
        self._state: states.State = {}
        self._shared: states.State = {}
        """What the strategy sends beside the state in this round."""
        self._encoded: dict[tuple[bool, bool], Buffers] = {}
        self._counted: list[tuple[str, int]] = []
        """Of the round under way: the updates taken in, by silo and the round of their state."""
        self._told_scaling: set[str] = set()
        self._refused: dict[str, tuple[type[FlError], str]] = {}
        """Of silos that have failed in this round: the kind of error, and its remedy."""
        self._error: FlError | None = None
        self._goodbye: float | None = None
        self._leaving: set[str] = set()
        """Silos that are still to take the end of the run."""
        self._connected: set[str] = set()
        """Silos whose stream stands."""
        self._ready: set[str] = set()
        """Of these, those that have said on it that they are ready."""
        self._aside: set[str] = set()
        resumed = self._resume() if config.resume else None
        self._engine = rounds.Engine(
            self._silos, rules(self._spec), self._select, time.monotonic(), resumed
        )
        args = arguments(config.run_id, 0, len(self._silos), self._spec.rounds)
        super().__init__(args, None, client_rank=0, client_num=len(self._silos), backend="fl_core")

    def _resume(self) -> rounds.Resumed | None:
        """Take up the run where its last checkpoint is; None when it has none."""
        saved = Position.load(self._config.folder)
        if saved is None:
            _log.info("no checkpoint yet: the run begins anew")
            return None
        self._state = saved.state
        self._scaling, self._sums = saved.scaling, dict(saved.sums)
        self._aside = set(saved.aside)
        self._best.restore(dict(saved.best))
        self._best_tests = dict(saved.tests)
        self._start_strategy(saved.strategy)
        _log.info("going on after round %d", saved.round)
        self._tell({"event": "resumed", "round": saved.round})
        self._tell_rows()
        return rounds.Resumed(saved.round, saved.sums.keys(), saved.aside)

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
            self._admits,
            len(self._silos),
            self._config.run_id,
            limit,
            self.com_manager.take,
            excluded=self._config.excluded,
        )
        self.com_manager.endpoint = _Listening(self._server)
        folder = self._config.folder / position.FOLDER
        self._checkpoints = checkpoint.Writer(folder, self.com_manager.wake)

    def _admits(self, silo: str) -> bool:
        return silo in self._ranks and silo not in self._aside

    def listen(self) -> None:
        """Open the port and say which it is. Raises TransportError when it is taken."""
        port = self._server.start(self._config.host, self._config.port)
        self._tell({"event": "listening", "port": port})

    def begin(self) -> None:
        """What a run that goes on begins with."""
        for command in self._engine.begin(time.monotonic()):
            self._execute(command)

    def obey(self, order: Order) -> None:
        """Take an order of the process that started this one, from any thread."""
        self.com_manager.order({"order": order})

    def register_message_receive_handlers(self) -> None:
        """FedML's own messages, and this project's."""
        super().register_message_receive_handlers()
        for kind, handler in (
            (wire.SUMS, self._take_sums),
            (wire.SCORES, self._take_scores),
            (wire.LEFT, self._left),
            (wire.ORDER, self._ordered),
            (wire.UNKNOWN, self._unknown),
            (wire.TICK, self._tick),
        ):
            self.register_message_receive_handler(kind, handler)

    def _wait(self) -> float | None:
        due = self._goodbye if self._goodbye is not None else self._engine.due
        return None if due is None else due - time.monotonic()

    def _tick(self, message: Message) -> None:
        self._checkpoints.check()
        self._advance(rounds.Tick())

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
        silo = self._sender(msg_params)
        self._ready.discard(silo)
        self._connected.add(silo)

    def process_online_status(self, client_status: str, msg_params: Message) -> None:
        """A silo is ready, for the first time or again."""
        silo = self._sender(msg_params)
        if silo in self._ready:
            self._refuse(silo, 0, UpdateError("said twice on one stream that it is ready", _LOG))
            return
        self._ready.add(silo)
        self._told_scaling.discard(silo)
        if self._goodbye is not None:  # it was away when the others were told
            self.send_message_finish(self._ranks[silo], 0)
            return
        _log.info("silo %s joined", silo)
        self._tell({"event": "joined", "silo": silo})
        self._advance(rounds.Joined(silo))

    def handle_message_client_status_update(self, msg_params: Message) -> None:
        """FedML's statuses, and that a silo cannot do what it was asked for."""
        params = msg_params.get_params()
        silo, status = self._sender(msg_params), params.get("client_status")
        if status == wire.FAILED:
            code = params.get("code")
            title = ERRORS[code].title if isinstance(code, int) and code in ERRORS else "unknown"
            self._refuse(silo, params[wire.ROUND], RoleError(f"failed: {title}", _LOG))
        elif status in (self.ONLINE_STATUS_FLAG, self.RUN_FINISHED_STATUS_FLAG):
            super().handle_message_client_status_update(msg_params)
        else:
            self._refuse(silo, 0, UpdateError(f"sent the status {status!r:.80}", _LOG))

    def process_finished_status(self, client_status: str, msg_params: Message) -> None:
        """A silo has taken the end of the run."""
        self._depart(self._sender(msg_params))

    def _left(self, message: Message) -> None:
        silo, reason = self._sender(message), str(message.get("reason"))
        self._ready.discard(silo)
        self._connected.discard(silo)
        if self._goodbye is not None:
            self._depart(silo)
            return
        if message.get("refused"):
            self._refuse(silo, 0, UpdateError(reason, _LOG))
        _log.warning("silo %s left: %s", silo, reason)
        self._tell({"event": "left", "silo": silo, "reason": reason})
        self._advance(rounds.Left(silo, reason))

    def _unknown(self, message: Message) -> None:
        reason = f"message of unknown kind {message.get('kind')}"
        self._refuse(self._sender(message), 0, UpdateError(reason, _LOG))

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
        if self._scaling is not None:  # else all of them are told when the run begins
            self._tell_rows()
        self._advance(rounds.Summed(silo))

    def handle_message_receive_model_from_client(self, msg_params: Message) -> None:
        """Take an update into the strategy, once, if it can be combined."""
        params = msg_params.get_params()
        silo, round = self._sender(msg_params), params[wire.ROUND]
        late = self._engine.lateness(silo, round)
        if late is None:
            _log.warning("silo %s: its update of round %d is late, or doubled", silo, round)
            self._advance(rounds.Dropped(silo, round, fit=True))
            return
        try:
            arrays = self.com_manager.arrays(msg_params)
            answer = answers.trained(params, arrays, self._sums[silo].rows)
            if self._spec.staleness is not None:
                discount = self._spec.staleness.discount(late)
                answer = answers.rebased(answer, self._state, discount)
            with blamed(f"{self._strategy} in check, round {round},"):
                self._job.strategy.check(answer.update)
            with blamed(f"{self._model} in check_update, round {round},"):
                self._job.model.check_update(answer.update)
        except UpdateError as error:
            self._refuse(silo, round, error)
            return
        start = time.perf_counter()
        with blamed(f"{self._strategy} in add, round {round},"):
            self._job.strategy.add(f"{silo}@{round}" if late else silo, answer.update)
        seconds = time.perf_counter() - start
        self._counted.append((silo, round))
        self._board.trained(silo, round, answer, params[wire.BYTES], seconds)
        self._tell(
            {"event": "updated", "silo": silo, "round": round, "loss": answer.loss, "late": late}
        )
        self._advance(rounds.Updated(silo, round))

    def _take_scores(self, message: Message) -> None:
        params = message.get_params()
        silo, round = self._sender(message), params[wire.ROUND]
        if not self._engine.wants(rounds.Scored, silo, round):
            self._advance(rounds.Dropped(silo, round + 1, fit=False))
            return
        try:
            arrays = self.com_manager.arrays(message)
            personal = self._spec.personalisation is not None
            answer = answers.scored(params, arrays, self._sums[silo].rows, personal)
        except UpdateError as error:
            self._refuse(silo, round, error)
            return
        self._board.scored(silo, round, answer)
        self._advance(rounds.Scored(silo, round))

    def _ordered(self, message: Message) -> None:
        order: Order = message.get_params()["order"]
        silo, reason = order["silo"], order.get("reason", "")
        if silo not in self._ranks or self._goodbye is not None:
            return
        if order["order"] == "lost":
            _log.warning("silo %s is lost: %s", silo, reason)
            self._advance(rounds.Lost(silo, reason))
        elif order["order"] == "readmit" and silo in self._aside:
            _log.warning("silo %s is let back", silo)
            self._aside.discard(silo)
            self._advance(rounds.Readmitted(silo))

    # What the engine wants

    def _advance(self, event: rounds.Event) -> None:
        if self._goodbye is not None:
            if time.monotonic() >= self._goodbye:
                _log.warning("silos that took no leave: %s", sorted(self._leaving))
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
                self._send_state(silos, round, fit)
            case rounds.Aggregate(round):
                self._aggregate(round)
            case rounds.Report(round):
                self._report(round)
            case rounds.SetAside(silo, reason):
                self._set_aside(silo, reason)
            case rounds.Extend(round, reason, anew):
                _log.warning("round %d %s: %s", round, "begins anew" if anew else "waits", reason)
                told = {"event": "extended", "round": round, "reason": reason, "anew": anew}
                self._tell(told)
            case rounds.Complete():
                self._complete()
            case rounds.End(reason, lost):
                self._error = self._ended(reason, lost)
                self._take_leave(self._connected)

    def _select(self, round: int, silos: Sequence[str]) -> Sequence[str]:
        drawn = select(self._spec, round, silos)
        with blamed(f"{self._strategy} in select, round {round},"):
            chosen = self._job.strategy.select(round, drawn)
            if not chosen or not set(chosen) <= set(drawn):
                raise ValueError(f"chose {chosen!r} of {drawn!r}")
        return chosen

    def _prepare(self) -> None:
        known = sorted(self._sums)
        self._scaling = Scaling.pooled(self._sums[silo].moments for silo in known)
        with blamed(f"{self._model} in initial_state"):
            self._state = self._job.model.initial_state(derive(self._spec.seed, "init"))
        states.check_finite(self._state, f"initial state of {self._model}")
        self._start_strategy({})
        self._tell_rows()
        rows = [sums.rows for sums in self._sums.values()]
        self._record.add(sizes({kind: sum(one[kind] for one in rows) for kind in rows[0]}))
        self._save(0)

    def _start_strategy(self, memory: states.State) -> None:
        with blamed(f"{self._strategy} in begin_run"):
            self._job.strategy.begin_run(self._silos)
            if memory:
                self._job.strategy.restore(memory)

    def _tell_rows(self) -> None:
        rows = {silo: self._sums[silo].rows for silo in sorted(self._sums)}
        self._tell({"event": "rows", "rows": rows})

    def _begin(self, round: int) -> None:
        self._plugins.call("before_round", run_id=self._config.run_id, round=round)
        with blamed(f"{self._strategy} in start, round {round},"):
            self._job.strategy.start(self._state)
        with blamed(f"{self._strategy} in shared"):
            self._shared = self._job.strategy.shared()
        self._encoded = {key: data for key, data in self._encoded.items() if not key[1]}
        self._counted = []
        self._refused = {}
        self._board.begin()
        self._tell({"event": "round", "round": round, "rounds": self._spec.rounds})

    def _send_state(self, silos: Sequence[str], round: int, training: Collection[str]) -> None:
        after = self._checkpoints.written
        for silo in silos:
            fit = silo in training
            encoded = self._encode(silo not in self._told_scaling, fit)
            params = {wire.ROUND: round, wire.ARRAYS: encoded, wire.AFTER: after, "fit": fit}
            self.send_message(wire.message(wire.STATE, 0, self._ranks[silo], params))
            self._told_scaling.add(silo)
            self._board.sent(silo, round, len(encoded))
        told = {"event": "sent", "round": round, "silos": silos, "training": sorted(training)}
        self._tell(told)

    def _encode(self, with_scaling: bool, with_shared: bool) -> Buffers:
        """The state as it travels, laid out once for all silos."""
        shared = self._shared if with_shared else {}
        key = (with_scaling, bool(shared))
        if key not in self._encoded:
            arrays = {answers.MODEL + name: array for name, array in self._state.items()}
            arrays |= {answers.STRATEGY + name: array for name, array in shared.items()}
            if with_scaling:
                assert self._scaling is not None
                arrays |= {wire.SCALING + name: a for name, a in self._scaling.as_state().items()}
            encoded = states.laid_out(arrays)
            if len(encoded) > self._spec.max_state_bytes:
                raise UpdateError(
                    f"{self._model}: state of {len(encoded)} bytes is over the "
                    f"limit of {self._spec.max_state_bytes}",
                    "raise max_state_bytes in the run file, or make the model smaller",
                )
            self._encoded[key] = encoded
        return self._encoded[key]

    def _aggregate(self, round: int) -> None:
        start = time.perf_counter()
        with blamed(f"{self._strategy} in finish, round {round},"):
            self._state = self._job.strategy.finish()
        self._encoded = {}
        states.check_finite(self._state, f"aggregated state of round {round}")
        self._board.aggregated(round, time.perf_counter() - start)
        self._note(round)
        self._save(round)

    def _note(self, round: int) -> None:
        """Write down which updates the new state is made of."""
        updates = [{"silo": silo, "round": base} for silo, base in sorted(self._counted)]
        _log.info("round %d: state of %d updates", round, len(updates))
        line = json.dumps({"round": round, "updates": updates}) + "\n"
        with storing(path := self._config.folder / ROUNDS_FILE), path.open("a") as file:
            file.write(line)

    def _save(self, round: int) -> None:
        """Keep what a restart needs; no silo learns of the new state before that is written."""
        assert self._scaling is not None
        with blamed(f"{self._strategy} in memory"):
            memory = self._job.strategy.memory()
        saved = Position(
            round,
            self._state,
            self._scaling,
            self._sums,
            memory,
            tuple(sorted(self._aside)),
            self._best.facts(),
            self._best_tests,
        )
        self._checkpoints.save(saved.checkpoint(), {self._best.round})

    def _report(self, round: int) -> None:
        figures = self._board.report(round)
        _log.info("round %d: %s", round, figures)
        self._tell({"event": "scored", "round": round, "figures": figures})
        run_id = self._config.run_id
        self._plugins.call("after_round", run_id=run_id, round=round, metrics=figures)
        enough = self._best.judge(round, self._board.validation)
        if self._spec.keep_best is None or self._best.round == round:
            self._best_tests = self._board.tests
        if enough:
            _log.info("round %d: the run stops early", round)
            self._tell({"event": "stopped_early", "round": round})
        self._advance(rounds.Judged(round, enough))

    def _set_aside(self, silo: str, reason: str) -> None:
        self._aside.add(silo)
        _log.error("silo %s is set aside after %d faults: %s", silo, rounds.FAULTS, reason)
        self._tell({"event": "aside", "silo": silo, "reason": reason})
        self._server.refuse(silo, f"set aside after {rounds.FAULTS} faults, the last: {reason}")

    def _ended(self, reason: str, lost: Sequence[tuple[str, str]]) -> FlError:
        """The error of a run that ends for want of silos: of the kind of the first one's own."""
        known = [self._refused[silo] for silo, _ in lost if silo in self._refused]
        kind, remedy = known[0] if known else (RoleError, "")
        return kind(
            reason,
            remedy or "see the silos' logs; `quorum` in the run file says how many silos it needs",
        )

    def _complete(self) -> None:
        folder = self._config.folder
        assert self._scaling is not None
        self._checkpoints.written.result()
        if self._best.round:
            self._state = position.state_of(folder, self._best.round)
            self._tell({"event": "best", "round": self._best.round})
        with blamed(f"{self._model} in export"):
            exported = self._job.model.export(self._state)
            for name in exported:
                if name != Path(name).name or name.startswith("."):
                    raise ValueError(f"export of a file named {name!r}")
                if (folder / name).exists() and not self._config.resume:
                    raise ValueError(f"export of a file named {name!r}, which is there already")
        for name, content in exported.items():
            write_atomic(folder / name, content)
        write_atomic(folder / PREPROCESSING_FILE, preprocessing(self._job.schema, self._scaling))
        write_atomic(folder / SCORES_FILE, score_counts(self._best_tests))
        write_atomic(folder / MODEL_FILE, states.encode(self._state))  # last: now all is there
        self._take_leave(self._connected)

    def _take_leave(self, silos: Collection[str]) -> None:
        """Tell silos that the run is over; the end comes when these have answered."""
        self._goodbye = time.monotonic() + GOODBYE_SECONDS
        self._leaving = set(silos)
        for silo in sorted(self._connected):
            self.send_message_finish(self._ranks[silo], 0)
        if not silos:
            self.finish()

    def take_leave_again(self) -> None:
        """The run has its result, but was cut off before all silos had been told."""
        self._take_leave(self._sums.keys() - self._aside)

    def _depart(self, silo: str) -> None:
        self._leaving.discard(silo)
        if self._goodbye is not None and not self._leaving:
            self.finish()

    def _refuse(self, silo: str, round: int, error: FlError) -> None:
        """A silo has failed, or what it sent cannot be used; round 0 is before the first."""
        _log.error("silo %s, round %d: %s", silo, round, error.message)
        # Not the error, whose traceback would keep the silo's arrays in memory.
        self._refused[silo] = type(error), error.remedy
        self._tell({"event": "refused", "silo": silo, "round": round, "reason": error.message})
        self._advance(rounds.Failed(silo, error.message))

    def finish(self) -> None:
        """End the loop and the streams."""
        self.com_manager.stop_receive_message()

    def check(self) -> None:
        """Raise the error that ended the run, if one did."""
        if self._error is not None:
            raise self._error

    def _sender(self, message: Message) -> str:
        return self._by_rank[message.get_sender_id()]


def run(
    config: RoleConfig,
    job: Job,
    plugins: Plugins,
    tell: Tell,
    record: Record,
    orders: Orders | None = None,
) -> None:
    """Run a training as its aggregator, to the end. Raises FlError."""
    checkpoints = config.folder / position.FOLDER
    finished = config.resume and (config.folder / MODEL_FILE).exists()
    if finished and checkpoint.latest(checkpoints) is None:
        _log.info("the run has its result: there is nothing left to do")
        return
    aggregator = Aggregator(config, job, plugins, tell, record)
    try:
        aggregator.listen()
        if orders is not None:
            orders(aggregator.obey)
        if finished:
            aggregator.take_leave_again()
        else:
            aggregator.begin()
        aggregator.run()
    except BaseException:
        aggregator.finish()
        raise
    aggregator.check()
    checkpoint.remove(checkpoints)  # not before: silos that were away have to be told the end
