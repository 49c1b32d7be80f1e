"""The silo: FedML's client, training and scoring on its own table."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from fl_core import state as states
from fl_core.buffers import Buffers
from fl_core.dataset import Table
from fl_core.errors import FlError, PluginError, RoleError, TransportError, UpdateError
from fl_core.job import Job, predicted
from fl_core.metrics import Scores, Value
from fl_core.model import FitContext, Update
from fl_core.plugins import Plugins, blamed
from fl_core.preprocessing import Moments, Parts, Scaling
from fl_core.role import PATIENCE_SECONDS, RoleConfig
from fl_core.roles import answers, kept
from fl_core.roles import communication as wire
from fl_core.roles.communication import Communication
from fl_core.roles.fedml import ClientMasterManager, Message, arguments
from fl_core.roles.personal import Personal
from fl_core.seeding import derive
from fl_core.tracking.local import (
    FIT_SECONDS,
    SCORE_SECONDS,
    TRAINING_LOSS,
    personal_quality,
    quality,
)
from fl_core.tracking.parameters import sizes
from fl_core.tracking.part import Record
from fl_core.transport.client import AGGREGATOR, Client
from fl_core.transport.frames import Frame, word_sum

_log = logging.getLogger(__name__)
MEMORY_FOLDER = "memory"
"""What a model keeps for its next fit in this silo, by round."""


class _Dialled:
    """The silo's endpoint: one stream, to the aggregator."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, peer: str, frame: Frame, soon: bool) -> None:
        self._client.send(frame, soon)

    def stop(self) -> None:
        self._client.stop()


class Silo(ClientMasterManager):
    """Answers the aggregator's messages until it says that the run is over."""

    def __init__(
        self, config: RoleConfig, job: Job, parts: Parts, plugins: Plugins, record: Record
    ) -> None:
        assert config.silo is not None
        self._config = config
        self._silo = config.silo
        self._model = f"silo {config.silo!r}: model {config.spec.model.name!r}"
        self._job = job
        self._parts = parts
        self._scaled: Parts | None = None
        self._plugins = plugins
        self._record = record
        self._scaling_fingerprint: bytes | None = None
        self._asked: tuple[int, int] = (0, 0)
        """The last round that was to be answered, and its state's sum."""
        self._answers: dict[int, dict[str, Any]] = {}
        """What has been answered in it, by kind of message."""
        rule = config.spec.personalisation
        self._personal = None if rule is None else Personal(job, rule, config.silo, config.folder)
        self.fault: FlError | None = None
        """Why this silo could not do what it was last asked for."""
        self.finished = False
        names = config.spec.silo_names
        rank = names.index(config.silo) + 1
        args = arguments(config.run_id, rank, len(names), config.spec.rounds)
        super().__init__(args, None, rank=rank, size=len(names) + 1, backend="fl_core")

    def _init_manager(self) -> None:
        limit = self._config.spec.max_state_bytes
        self.com_manager = Communication(
            {AGGREGATOR: 0},
            frozenset({wire.ASK_SUMS, wire.STATE, wire.FINISH}),
            limit,
            wait=lambda: None,
        )
        self.com_manager.add_observer(self)
        client = Client(
            self._config.identity,
            self._config.federation,
            self._config.run_id,
            limit,
            self.com_manager.take,
            PATIENCE_SECONDS,
        )
        self.com_manager.endpoint = _Dialled(client)
        client.start(self._config.host, self._config.port)

    def register_message_receive_handlers(self) -> None:
        """FedML's own messages, and that the stream has ended."""
        super().register_message_receive_handlers()
        self.register_message_receive_handler(wire.LEFT, self._left)
        self.register_message_receive_handler(wire.UNKNOWN, self._unknown)

    def handle_message_connection_ready(self, msg_params: Message) -> None:
        """Say that the silo is there, also after a lost stream."""
        self.send_client_status(0)

    def _left(self, message: Message) -> None:
        if message.get("refused"):
            raise TransportError(
                f"silo {self._silo!r} has no stream to the aggregator: {message.get('reason')}",
                "check the address, that the aggregator runs, and the silo's certificate",
            )

    def _unknown(self, message: Message) -> None:
        raise TransportError(
            f"silo {self._silo!r}: the aggregator sent a message of unknown kind "
            f"{message.get('kind')}",
            "both ends must run the same version of fl-core",
        )

    def handle_message_init(self, msg_params: Message) -> None:
        """Answer with the sums of the training rows' features, and the numbers of rows."""
        sums = Moments.of(self._parts.train).as_state()
        self._answer(wire.SUMS, **{wire.ARRAYS: sums, "rows": self._parts.counts})

    def handle_message_receive_model_from_server(self, msg_params: Message) -> None:
        """Score the state, then train on it, as the message asks."""
        params = msg_params.get_params()
        round, fit = params[wire.ROUND], params.get("fit") is True
        arrays = self.com_manager.arrays(msg_params)
        scaling, state = states.under(arrays, wire.SCALING), states.under(arrays, answers.MODEL)
        if scaling:
            self._scale(Scaling.from_state(scaling, len(self._job.schema.features)))
        if self._scaled is None:
            raise TransportError("the aggregator sent a state before the scaling", "see its log")
        self._admit(round, fit, word_sum(states.laid_out(state)))
        size = params[wire.BYTES]
        try:
            if round > 1:
                if wire.SCORES not in self._answers:
                    self._answers[wire.SCORES] = self._score(state, round - 1, self._scaled)
                    _log.info("round %d: state of %d bytes scored", round - 1, size)
                # An update follows, at once if the model is small.
                self._answer(wire.SCORES, **{wire.SOON: fit}, **self._answers[wire.SCORES])
            if fit:
                if wire.UPDATE not in self._answers:
                    shared = states.under(arrays, answers.STRATEGY)
                    self._answers[wire.UPDATE] = self._fit(state, shared, round, self._scaled)
                self._answer(wire.UPDATE, **self._answers[wire.UPDATE])
            self.fault = None
        except (RoleError, UpdateError, PluginError) as error:  # the next round may go better
            _log.error("round %d: %s", round, error.message, exc_info=error)
            self.fault = error
            self.tell_failure(error, round)

    def _admit(self, round: int, fit: bool, total: int) -> None:
        """Refuse what would have this silo answer more than a run needs.

        Each answer tells something about its rows: so each round is answered once. After a lost
        stream the same answers are sent again; ``total``, the state's sum, shows an aggregator that
        has changed its state.
        """
        rounds = self._config.spec.rounds
        again = self._asked == (round, total)
        first = round > self._asked[0]
        if not (first or again) or round > (rounds if fit else rounds + 1):
            raise TransportError(
                f"silo {self._silo!r}: the aggregator asked for round {round} of {rounds} "
                f"after round {self._asked[0]}, or for another state of it",
                "this silo answers each round once; look into what runs as the aggregator",
            )
        if first:
            self._asked, self._answers = (round, total), {}

    def _scale(self, scaling: Scaling) -> None:
        """Take the scaling, once for the whole run."""
        fingerprint = states.fingerprint(scaling.as_state())
        if self._scaling_fingerprint not in (None, fingerprint):
            raise TransportError(
                f"silo {self._silo!r}: the aggregator sent another scaling in the middle of a run",
                "this silo takes one scaling a run; look into what runs as the aggregator",
            )
        self._scaling_fingerprint = fingerprint
        keep = self._job.model.accepts_missing
        parts = self._parts
        self._scaled = Parts(
            scaling.apply(parts.train, keep),
            scaling.apply(parts.validation, keep),
            scaling.apply(parts.test, keep),
        )

    def _score(self, state: states.State, round: int, parts: Parts) -> dict[str, Any]:
        start = time.perf_counter()
        what = f"{self._model} in predict, round {round}"
        validation = self._scores(state, parts.validation, what)
        test = self._scores(state, parts.test, what)
        figures = quality(validation, test)
        arrays = validation.as_state("validation") | test.as_state("test")
        if self._personal is not None:
            own = self._personal.trained(state, round, parts.train)
            scores = self._scores(own, parts.test, what)
            figures |= personal_quality(scores)
            arrays |= scores.as_state("personal")
        seconds = time.perf_counter() - start
        for name, value in figures.items():
            self._log(round, name, value)
        self._log(round, SCORE_SECONDS, Value(seconds))
        return {wire.ROUND: round, wire.ARRAYS: arrays, "seconds": seconds}

    def _scores(self, state: states.State, table: Table, what: str) -> Scores:
        return Scores.of(predicted(self._job.model, state, table, what), table.labels)

    def _fit(
        self, state: states.State, shared: states.State, round: int, parts: Parts
    ) -> dict[str, Any]:
        context = FitContext(
            round,
            self._silo,
            derive(self._config.spec.seed, "fit", self._silo, round),
            self._job.strategy.fit_options(),
            shared=shared,
            memory=kept.before(self._config.folder / MEMORY_FOLDER, round),
        )
        run_id = self._config.run_id
        self._plugins.call("before_fit", run_id=run_id, context=context, rows=len(parts.train))
        start = time.perf_counter()
        with blamed(f"{self._model} in fit, round {round},"):
            update = self._job.model.fit(state, parts.train, context)
        seconds = time.perf_counter() - start
        encoded = self._checked(update, state, round)
        if update.memory:
            kept.keep(self._config.folder / MEMORY_FOLDER, round, states.encode(update.memory))
        self._log(round, TRAINING_LOSS, Value(float(update.metrics["loss"])))
        self._log(round, FIT_SECONDS, Value(seconds))
        _log.info("round %d: update of %d bytes after %.3f s", round, len(encoded), seconds)
        self._plugins.call("after_fit", run_id=run_id, context=context, update=update)
        return {
            wire.ROUND: round,
            wire.ARRAYS: encoded,
            "weight": int(update.weight),
            "loss": float(update.metrics["loss"]),
            "seconds": seconds,
        }

    def _checked(self, update: Update, state: states.State, round: int) -> Buffers:
        """The update's arrays, laid out, if it may be sent. Raises UpdateError."""
        what = f"{self._model}, round {round}"
        states.check_finite(update.state, what)
        if not np.isfinite(update.metrics.get("loss", np.nan)):
            raise UpdateError(
                f"{what}: training loss is {update.metrics.get('loss')}",
                "lower the learning rate, or look for missing values in the silo's data",
            )
        if not (isinstance(update.weight, int) and update.weight >= 1):
            raise UpdateError(f"{what}: weight is {update.weight!r}", "give the number of rows")
        arrays = update.state
        if self._config.spec.staleness is not None:  # it may be combined with a later state
            states.check_same_form(arrays, state, what)
            arrays = {name: array - state[name] for name, array in arrays.items()}
        named = {answers.MODEL + name: array for name, array in arrays.items()}
        named |= {answers.STRATEGY + name: array for name, array in update.extra.items()}
        encoded = states.laid_out(named)
        limit = self._config.spec.max_state_bytes
        if len(encoded) > limit:
            raise UpdateError(
                f"{what}: state of {len(encoded)} bytes is over the limit of {limit}",
                "raise max_state_bytes in the run file, or make the model smaller",
            )
        return encoded

    def _log(self, round: int, name: str, value: Value) -> None:
        self._record.log(self._silo, round, name, value)

    def tell_failure(self, error: FlError, round: int = 0) -> None:
        """Tell the aggregator that this silo cannot do what it was asked for.

        Only the kind of error leaves the silo: its text may hold values of rows.
        """
        status = {wire.ROUND: round, "client_status": wire.FAILED, "code": error.exit_code}
        self._answer(wire.STATUS, **status)

    def _answer(self, kind: int, **params: Any) -> None:
        self.send_message(wire.message(kind, self.rank, 0, params))

    @property
    def last_round(self) -> int:
        """The last round that was answered; 0 before the first."""
        return self._asked[0]

    def finish(self) -> None:
        """End the loop and the stream."""
        self.finished = True
        self.com_manager.stop_receive_message()


def run(config: RoleConfig, job: Job, plugins: Plugins, record: Record) -> None:
    """Take part in a run as a silo, until the aggregator ends it. Raises FlError."""
    assert config.silo is not None
    parts = job.load(config.silo)
    _log.info("rows: %s", parts.counts)
    record.add(sizes(parts.counts))
    silo = Silo(config, job, parts, plugins, record)
    try:
        silo.run()
    except FlError as error:
        silo.tell_failure(error)
        raise
    finally:
        if not silo.finished:
            silo.com_manager.stop_receive_message()
    if silo.fault is not None:
        raise silo.fault
    if silo.last_round <= config.spec.rounds:  # it scores the last state in one more
        when = f"in round {silo.last_round}" if silo.last_round else "before the first round"
        record.stopped(f"the aggregator ended the run {when}")
