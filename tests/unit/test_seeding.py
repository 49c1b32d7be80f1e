"""Seeds: fixed for ever, and different for every purpose."""

from hypothesis import given
from hypothesis import strategies as st

from fl_core.seeding import derive

labels = st.lists(
    st.integers(0, 10**6) | st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1), max_size=3
)


def test_a_seed_never_changes_between_versions():
    assert derive(42, "fit", "cleveland", 3) == 7498869858658205001
    assert derive(0) == 3456079177858693020


@given(st.integers(0, 2**63 - 1), labels)
def test_a_seed_is_a_63_bit_number_and_repeats(seed, parts):
    value = derive(seed, *parts)
    assert 0 <= value < 2**63
    assert value == derive(seed, *parts)


def test_neighbouring_runs_silos_and_rounds_share_no_seed():
    seeds = {
        derive(seed, purpose, silo, round)
        for seed in range(10)
        for purpose in ("fit", "init")
        for silo in ("a", "b", "ab")
        for round in range(1, 30)
    }
    assert len(seeds) == 10 * 2 * 3 * 29


def test_labels_are_kept_apart():
    assert derive(1, "ab", "c") != derive(1, "a", "bc")
    assert derive(1, 23) != derive(12, 3)
