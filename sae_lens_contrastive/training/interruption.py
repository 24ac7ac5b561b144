"""Stopping a training between two steps, where its state is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sae_lens_contrastive.distributed import n_ranks


class Stoppable(Protocol):
    """A trainer that looks at `stop_requested` after every step and raises `KeyboardInterrupt` if it is set."""

    stop_requested: bool


@contextmanager
def stopped_by_signals(trainer: Stoppable) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the trainer after its present step; a second signal stops it at once.

    Not where ranks train together: torchrun passes on to them a signal that the terminal has sent them already, and
    kills those that take too long. The host's own handlers interrupt in the middle of a step, and stay in place after
    training.
    """

    def request(_number: int, _frame: Any) -> None:
        if trainer.stop_requested and n_ranks() == 1:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
