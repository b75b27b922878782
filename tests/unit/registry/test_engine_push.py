"""Failures of an engine's push as ours."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from slipway.core import Credentials, SlipwayError, interrupt_behind, silent
from slipway.engine import TransferError
from slipway.engine.errors import TransferKind
from slipway.registry import Target, engine_push
from slipway.registry.distribution import RetryPolicy

TARGET = Target("local", "local", "127.0.0.1:5000")


@pytest.mark.parametrize("kind", get_args(TransferKind))
def test_a_failure_of_every_kind_comes_of_the_engines_words_and_of_nothing_twice(
    kind: TransferKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = TransferError(kind, "in the engine's words", retry=False, where="a", cure="the cure")

    def push(*_: Any, **__: Any) -> str:
        raise told

    monkeypatch.setattr(engine_push, "push_image_layers", push)
    engine: Any = None
    with pytest.raises(SlipwayError) as caught:
        engine_push.deliver_image(
            engine,
            "a",
            TARGET,
            credentials=lambda _: Credentials("user", "secret"),
            on_event=silent,
            policy=RetryPolicy(attempts=2, base=0.0, cap=0.0),
        )
    chain = [caught.value]
    while isinstance(chain[-1].__cause__, SlipwayError):
        assert chain[-1].__cause__ not in chain
        chain.append(chain[-1].__cause__)
    assert chain[-1] is told
    assert interrupt_behind(caught.value) is None
