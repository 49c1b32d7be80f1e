"""The fuzz targets on the corpus, and on what hypothesis makes of it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import CORPUS, MAX_BYTES, NAMES
from tests.fuzz.targets import TARGETS, joined, parts

SEEDS = {
    name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS
}


def every_seed() -> list[Path]:
    return sorted(CORPUS.rglob("*.bin"))


def test_the_command_names_every_target():
    assert set(NAMES) == set(TARGETS) == {path.name for path in CORPUS.iterdir()}


@pytest.mark.parametrize("path", every_seed(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_corpus_passes(path):
    data = path.read_bytes()
    assert len(data) <= MAX_BYTES
    TARGETS[path.parent.name](data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_hypothesis_makes_of_it_passes(name):
    seeds = SEEDS[name]
    edits = st.lists(
        st.tuples(st.integers(0, MAX_BYTES), st.integers(0, 3), st.binary(max_size=8)), max_size=4
    )

    @settings(max_examples=100, deadline=None)
    @given(st.one_of(st.sampled_from(seeds), st.binary(max_size=300)), edits)
    def passes(data: bytes, edits: list[tuple[int, int, bytes]]) -> None:
        for place, removed, added in edits:
            place %= len(data) + 1
            data = data[:place] + added + data[place + removed :]
        TARGETS[name](data)

    passes()


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_pieces_come_apart_as_they_were_joined(pieces):
    assert parts(joined(*pieces)) == pieces


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_has_seeds(name):
    assert SEEDS[name]
