"""Late rules laid out decide as the rules themselves, one after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from packetcloud.router.late_rules import LateAnswer, LateContests
from packetcloud.router.rules.answer import Answer, Contender, Contest, Late
from packetcloud.router.rules.rule import MAX_SIZE_BYTES, Action

LATES = st.builds(
    Late,
    st.integers(0, 4),
    st.one_of(st.just(MAX_SIZE_BYTES), st.integers(0, 5)),
    st.lists(st.integers(0, 5), max_size=3, unique=True).map(tuple),
    st.booleans(),
)
CONTENDERS = st.builds(
    Contender, st.integers(1, 99), st.sampled_from(Action), st.one_of(LATES, LATES, st.none())
)
CONTESTS = st.lists(
    st.builds(
        Contest,
        st.binary(min_size=1, max_size=1),
        st.lists(CONTENDERS, min_size=1, max_size=24).map(tuple),
    ),
    max_size=3,
).map(tuple)


@given(
    CONTESTS,
    CONTESTS,
    st.lists(st.tuples(st.integers(0, 6), st.frozensets(st.integers(0, 7))), min_size=1),
)
def test_kinds_decide_as_the_chunks_themselves(
    contests: tuple[Contest, ...],
    shadow: tuple[Contest, ...],
    chunks: list[tuple[int, frozenset[int]]],
) -> None:
    """Whoever decides about the first chunk of a kind decides about all of them."""
    late = LateAnswer(Answer(1, contests, shadow), LateContests())
    of_kind: dict[object, object] = {}
    for size, found in chunks:
        kind = late.kind(size, found)
        winners = of_kind.setdefault(kind, late.winners(size, kind[1]))
        assert winners == (
            tuple(one.winner(size, found) for one in contests),
            tuple(one.winner(size, found) for one in shadow),
        )
