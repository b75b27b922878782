"""Slurm node lists and the order of host names."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.causes import LaunchUsageError
from launcher.platforms import natural_key
from launcher.platforms.hostlist import MAX_HOSTS, expand_hostlist

PREFIX = st.text("abcxyz-.", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", ["n1"]),
        ("n[1-2]", ["n1", "n2"]),
        ("a[1-3,07-09]-b", ["a1-b", "a2-b", "a3-b", "a07-b", "a08-b", "a09-b"]),
        ("ip-10-0-[1-2]-[8,10]", ["ip-10-0-1-8", "ip-10-0-1-10", "ip-10-0-2-8", "ip-10-0-2-10"]),
        ("b2,a[001-002],c", ["b2", "a001", "a002", "c"]),
        ("n[98-101]", ["n98", "n99", "n100", "n101"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
    ],
)
def test_a_node_list_expands_as_scontrol_show_hostnames_does(text: str, hosts: list[str]) -> None:
    assert expand_hostlist(text) == hosts


@pytest.mark.parametrize(
    "text",
    ["", "n[1-2", "n1-2]", "n[[1]]", "n[a-b]", "n[3-1]", "n[1-]", "n[,]", "a,,b", "n[1-99999999]"],
)
def test_a_damaged_node_list_is_a_usage_error(text: str) -> None:
    with pytest.raises(LaunchUsageError):
        expand_hostlist(text)


def test_a_node_list_can_not_fill_the_memory() -> None:
    with pytest.raises(LaunchUsageError, match=str(MAX_HOSTS)):
        expand_hostlist("n[1-1000]-[1-1000]-[1-1000]")


@st.composite
def node_lists(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A list in Slurm's grammar, and what it stands for."""
    patterns, hosts = [], []
    for _ in range(draw(st.integers(1, 4))):
        head = draw(PREFIX)
        text, groups = head, [[head]]
        for _ in range(draw(st.integers(0, 2))):
            items, names = [], []
            for _ in range(draw(st.integers(1, 3))):
                width = draw(st.integers(1, 4))
                low = draw(st.integers(0, 50))
                high = low + draw(st.integers(0, 12))
                names += [str(n).zfill(width) for n in range(low, high + 1)]
                padded = str(low).zfill(width)
                items.append(padded if low == high else f"{padded}-{high}")
            tail = draw(st.sampled_from(["", "-x"]))
            text += f"[{','.join(items)}]{tail}"
            groups += [names, [tail]]
        patterns.append(text)
        hosts += ["".join(parts) for parts in itertools.product(*groups)]
    return ",".join(patterns), hosts


@given(node_lists())
def test_every_list_in_slurms_grammar_expands_to_its_hosts(case: tuple[str, list[str]]) -> None:
    text, hosts = case
    assert expand_hostlist(text) == hosts


@given(st.lists(st.integers(0, 10**6), unique=True), PREFIX)
def test_numbered_hosts_sort_by_number(numbers: list[int], prefix: str) -> None:
    names = [f"{prefix}{n}" for n in numbers]
    assert sorted(names, key=natural_key) == [f"{prefix}{n}" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=8), unique=True))
def test_any_names_have_one_order_whatever_their_first_order(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)
