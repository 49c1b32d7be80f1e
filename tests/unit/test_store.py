"""The store: what it was told is what it says, also after it was killed, in order."""

import json
import os
import resource
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_core.errors import ERRORS, FlError, Interrupted, RoleError, StorageError, from_dict
from fl_core.service import store
from fl_core.service.store import FILE, Store, StoredAside, StoredSilo
from fl_core.spec import RunSpec

CONTENT = {
    "name": "trial",
    "dataset": {"name": "heart-disease"},
    "silos": ["b", {"name": "a", "data": "rows.csv"}],
    "model": {"name": "mlp", "params": {"layers": [4, 2], "learning_rate": 1e-7}},
    "strategy": {"name": "fedavg"},
    "rounds": 3,
    "seed": 2**63 - 1,
}
SPEC = RunSpec.model_validate(CONTENT)
STATUSES = (store.QUEUED, store.RUNNING, store.COMPLETED, store.FAILED, store.INTERRUPTED)
ENDS = STATUSES[2:]


def with_params(**params: object) -> RunSpec:
    return RunSpec.model_validate(CONTENT | {"model": {"name": "mlp", "params": params}})


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    one = Store(folder)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """Files of this process do not grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def ids(runs: list[store.StoredRun]) -> list[str]:
    return [run.id for run in runs]


def test_a_new_store_is_empty_and_for_its_owner_only(tmp_path):
    folder = tmp_path / "deep" / "coordinator"
    with opened(folder) as one:
        assert one.latest(10) == []
        assert one.runs(store.QUEUED) == []
        assert one.silos() == {}
        assert one.run("trial-1") is None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_run_goes_from_the_queue_to_its_end(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
        queued = one.run("trial-1")
        assert queued is not None
        assert (queued.spec, queued.operator, queued.status) == (SPEC, "ann", store.QUEUED)
        assert (queued.started, queued.finished, queued.error) == (None, None, None)
        one.start("trial-1")
        running = one.run("trial-1")
        assert running is not None
        assert running.status == store.RUNNING
        assert running.started is not None
        assert running.finished is None
        one.finish("trial-1", store.COMPLETED, None)
        ended = one.run("trial-1")
    assert ended is not None
    assert (ended.status, ended.error) == (store.COMPLETED, None)
    assert ended.finished is not None
    assert queued.submitted == ended.submitted <= running.started <= ended.finished


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda kind: kind.__name__)
def test_the_error_that_ended_a_run_is_kept(tmp_path, kind):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
        one.finish("trial-1", store.FAILED, kind("wh\u00e4t\n'\"", "what to do"))
    with opened(tmp_path) as one:
        run = one.run("trial-1")
    assert run is not None
    assert run.error is not None
    again = from_dict(run.error)
    assert type(again) is kind
    assert (again.message, again.remedy) == ("wh\u00e4t\n'\"", "what to do")


def test_runs_are_listed_in_the_order_of_submission_whatever_their_ids_are(tmp_path):
    names = ["c", "a", "b", "e", "d"]
    with opened(tmp_path) as one:
        for name in names:
            one.add(name, SPEC, "ann")
        one.start("b")
        one.finish("b", store.FAILED, RoleError("x"))
        one.start("c")
        assert ids(one.runs(store.QUEUED)) == ["a", "e", "d"]
        assert ids(one.latest(3)) == ["b", "e", "d"]
        assert ids(one.latest(5)) == ids(one.latest(100)) == names
        assert one.latest(0) == []


def test_an_id_is_given_once(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
        one.finish("trial-1", store.INTERRUPTED, Interrupted("stopped"))
        with pytest.raises(StorageError, match="UNIQUE"):
            one.add("trial-1", SPEC, "bob")
        run = one.run("trial-1")
        assert run is not None
        assert (run.operator, run.status) == ("ann", store.INTERRUPTED)


def test_a_run_as_a_list_shows_it(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
        one.start("trial-1")
        one.finish("trial-1", store.FAILED, RoleError("lost", "look"))
        shown = json.loads(json.dumps(one.latest(1)[0].as_dict()))
    times = [shown.pop(name) for name in ("submitted", "started", "finished")]
    assert times == sorted(times)
    assert shown == {
        "run": "trial-1",
        "status": "failed",
        "model": "mlp",
        "silos": ["a", "b"],
        "rounds": 3,
        "operator": "ann",
        "error": {"code": 16, "title": "role failed", "message": "lost", "remedy": "look"},
    }


def test_a_silo_is_kept_as_it_was_last_seen(tmp_path):
    old = StoredSilo("b", "11", ["mlp"], 1.0)
    new = StoredSilo("b", "22", ["mlp", "xgboost"], 2.5)
    other = StoredSilo("a", "33", [], 0.0)
    with opened(tmp_path) as one:
        for silo in (old, other, new):
            one.seen(silo)
    with opened(tmp_path) as one:
        assert one.silos() == {"a": other, "b": new}
        assert list(one.silos()) == ["a", "b"]


def test_a_silo_is_set_aside_until_it_is_let_back(tmp_path):
    first = StoredAside("b", "trial-1", "too heavy", 1.5)
    again = StoredAside("b", "trial-2", "wh\u00e4t\n'\"", 2.5)
    other = StoredAside("a", "trial-1", "", 0.0)
    with opened(tmp_path) as one:
        assert one.aside() == {}
        for aside in (first, other, again):
            one.set_aside(aside)
        one.seen(StoredSilo("b", "11", ["mlp"], 3.0))  # joining changes nothing of it
    with opened(tmp_path) as one:
        assert one.aside() == {"a": other, "b": again}
        assert list(one.aside()) == ["a", "b"]
        one.readmit("b")
        one.readmit("nobody")
        assert one.aside() == {"a": other}
        assert list(one.silos()) == ["b"]


def first_version(folder: Path) -> None:
    """Make a store of version 1 of a new one, with what is in it."""
    database = sqlite3.connect(folder / FILE)
    database.executescript("DROP TABLE aside; PRAGMA user_version = 1;")
    database.close()


def test_a_store_of_the_first_version_is_taken_over_as_it_is(tmp_path):
    silo = StoredSilo("a", "11", ["mlp"], 1.0)
    with opened(tmp_path) as one:
        for name in "abc":
            one.add(name, SPEC, "ann")
        one.start("b")
        one.finish("a", store.FAILED, RoleError("lost"))
        one.seen(silo)
        before = one.latest(9)
    first_version(tmp_path)
    for _ in range(2):  # and once only
        with opened(tmp_path) as one:
            assert one.latest(9) == before
            assert one.silos() == {"a": silo}
            one.set_aside(StoredAside("a", "b", "x", 1.0))
            one.add(secrets.token_hex(8), SPEC, "ann")
            before = one.latest(9)
    database = sqlite3.connect(tmp_path / FILE)
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()


def test_a_store_that_cannot_be_taken_over_is_left_as_it_was(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
    first_version(tmp_path)
    with full_disk(), pytest.raises(StorageError, match=str(tmp_path / FILE)):
        Store(tmp_path)
    database = sqlite3.connect(tmp_path / FILE)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    assert database.execute("SELECT name FROM sqlite_master WHERE name = 'aside'").fetchall() == []
    database.close()
    with opened(tmp_path) as one:
        assert ids(one.latest(9)) == ["trial-1"]
        assert one.aside() == {}


@pytest.mark.parametrize("text", ["'; DROP TABLE runs; --", "\0", "\U0001f600", "%", "", "?"])
def test_text_is_text(tmp_path, text):
    with opened(tmp_path) as one:
        one.add("trial-1", with_params(word=text), text)
        run = one.run("trial-1")
        assert one.run(text) is None
    assert run is not None
    assert run.operator == text
    assert run.spec.model.params == {"word": text}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), values, max_size=4))
def test_a_spec_is_read_back_as_it_was(tmp_path, params):
    spec, run_id = with_params(**params), secrets.token_hex(8)
    with opened(tmp_path) as one:
        one.add(run_id, spec, "ann")
        run = one.run(run_id)
    assert run is not None
    assert run.spec == spec


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), [float("inf")]])
def test_infinity_does_not_become_nothing(tmp_path, value):
    with opened(tmp_path) as one:
        try:
            one.add("trial-1", with_params(value=value), "ann")
        except FlError:
            return
        run = one.run("trial-1")
    assert run is not None
    assert run.spec.model.params == {"value": value}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["\ud800", nested(220)], ids=["half a character", "deep"])
def test_a_spec_that_was_taken_blocks_no_queue(tmp_path, value):
    """Refused or kept, as long as the queue can be read."""
    with opened(tmp_path) as one:
        with suppress(FlError):
            one.add("trial-1", with_params(value=value), "ann")
        one.add("trial-2", SPEC, "ann")
        assert "trial-2" in ids(one.runs(store.QUEUED))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, str]]:
    """What happens to runs 0, 1, 2, ...: each is added, then perhaps started, then ended."""
    steps, count = [], 0
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from(["add", "start", "finish"])) if count else "add"
        which = count if kind == "add" else draw(st.integers(0, count - 1))
        count += kind == "add"
        steps.append((kind, which, draw(st.sampled_from(ENDS))))
    return steps


@settings(max_examples=20)
@given(histories(), st.integers(0, 15), st.booleans())
def test_any_history_is_read_back_in_order(steps, count, reopen):
    expected: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        one = Store(Path(folder))
        for kind, which, end in steps:
            run_id = f"{which * 7919 % 1000:03}-{which}"  # sorted in another order
            if kind == "add":
                one.add(run_id, SPEC, f"operator-{which}")
                expected[run_id] = store.QUEUED
            elif kind == "start":
                one.start(run_id)
                expected[run_id] = store.RUNNING
            else:
                one.finish(run_id, end, None)
                expected[run_id] = end
            if reopen:
                one.close()
                one = Store(Path(folder))
        listed = one.latest(len(expected) + 1)
        assert [(run.id, run.status) for run in listed] == list(expected.items())
        assert [run.operator for run in listed] == [f"operator-{n}" for n in range(len(expected))]
        last = max(0, len(expected) - count)
        assert one.latest(count) == listed[last:]
        for status in STATUSES:
            assert one.runs(status) == [run for run in listed if run.status == status]
        one.close()


KILLED = f"""
import os, signal, sys
from pathlib import Path
from fl_core.errors import RoleError
from fl_core.service.store import FAILED, Store, StoredAside, StoredSilo
from fl_core.spec import RunSpec
one = Store(Path(sys.argv[1]))
spec = RunSpec.model_validate({CONTENT!r})
for name in "abc":
    one.add(name, spec, "ann")
one.start("a")
one.finish("a", FAILED, RoleError("lost"))
one.start("b")
one.seen(StoredSilo("a", "11", ["mlp"], 1.0))
one.set_aside(StoredAside("b", "a", "lost", 1.0))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_was_told_is_on_the_disk(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path]
    killed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with opened(tmp_path) as one:
        assert [(run.id, run.status) for run in one.latest(9)] == [
            ("a", store.FAILED),
            ("b", store.RUNNING),
            ("c", store.QUEUED),
        ]
        assert list(one.silos()) == ["a"]
        assert list(one.aside()) == ["b"]
        one.add("d", SPEC, "ann")
        assert ids(one.runs(store.QUEUED)) == ["c", "d"]


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version = 3")
    database.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StorageError) as caught:
        Store(tmp_path)
    assert caught.value.message == f"{tmp_path / FILE} has version 3, not 2"
    assert "another folder" in caught.value.remedy
    assert (tmp_path / FILE).read_bytes() == before


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database at all\n" * 100)
    with pytest.raises(StorageError, match=f"{tmp_path / FILE}: .*not a database") as caught:
        Store(tmp_path)
    assert "--folder" in caught.value.remedy
    assert (tmp_path / FILE).read_bytes() == b"no database at all\n" * 100


def test_a_store_with_a_torn_page_is_refused_when_it_is_read(tmp_path):
    with opened(tmp_path) as one:
        for number in range(50):
            one.add(f"trial-{number}", SPEC, "ann")
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StorageError, match=str(path)), opened(tmp_path) as one:
        one.latest(50)


@pytest.mark.parametrize("spoil", ["file", "folder"])
def test_a_place_that_cannot_hold_it_is_refused(tmp_path, spoil):
    folder = tmp_path / "coordinator"
    if spoil == "file":
        folder.write_text("a file where the folder is to be")
    else:
        (folder / FILE).mkdir(parents=True)
    with pytest.raises(StorageError, match=str(folder / FILE)):
        Store(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to what is read-only")
def test_a_read_only_store_is_refused(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
    (tmp_path / FILE).chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match=f"{tmp_path / FILE}: "), opened(tmp_path) as one:
            one.add("trial-2", SPEC, "ann")
    finally:
        tmp_path.chmod(0o700)


def test_on_a_full_disk_a_change_is_refused_and_nothing_is_lost(tmp_path):
    with opened(tmp_path) as one:
        one.add("trial-1", SPEC, "ann")
        with full_disk(), pytest.raises(StorageError, match=f"{tmp_path / FILE}: ") as caught:
            one.add("trial-2", SPEC, "ann")
        assert "free space" in caught.value.remedy
        assert ids(one.latest(9)) == ["trial-1"]
        one.add("trial-3", SPEC, "ann")
    with opened(tmp_path) as one:
        assert ids(one.latest(9)) == ["trial-1", "trial-3"]


def test_a_folder_belongs_to_one_coordinator(tmp_path):
    """A second one would go on with the first one's runs."""
    with opened(tmp_path), pytest.raises(FlError):
        Store(tmp_path).close()
    with opened(tmp_path):
        pass
