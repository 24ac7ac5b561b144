"""The model in two halves around a residual-stream hook.

The lower half does not depend on what is done at the hook; evaluation and output-space losses run it once and call
the upper half as a function of the residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sae_lens_contrastive.errors import unknown_choice
from sae_lens_contrastive.models.bridge import HookedBridge, unknown_hook


def n_blocks_below(hook_name: str, n_layers: int) -> int:
    """Number of a model's blocks whose output a residual hook sees: L + 1 for `blocks.L.hook_resid_post`.

    Raises `ConfigError` for a hook that is not on the residual stream or beyond the last layer.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.hook_(resid_post|resid_pre|out|in)", hook_name)
    if match is None:
        raise unknown_choice(
            "residual-stream hook",
            hook_name,
            ("blocks.L.hook_resid_pre", "blocks.L.hook_resid_post"),
            fix="Evaluation and output-space loss terms work on the residual stream.",
        )
    if int(match.group(1)) >= n_layers:
        raise unknown_hook(hook_name, n_layers)
    return int(match.group(1)) + (match.group(2) in ("resid_post", "out"))


@torch.no_grad()
def residual_at_hook(
    model: Any, hook_name: str, tokens: Int[Tensor, "batch pos"], **inputs: Any
) -> Float[Tensor, "batch pos d_model"]:
    """Residual stream at the hook; the blocks above the hook's own do not run.

    Pad on the right: attention is causal, so pads change nothing before them. Further `inputs`, such as a mask, go to
    the model.
    """
    n_blocks_below(hook_name, model.cfg.n_layers)
    # The hook's own block must run, even for the hook at its entry.
    n_run = int(hook_name.split(".")[1]) + 1
    stop_at_layer = n_run if n_run < model.cfg.n_layers else None
    _, cache = model.run_with_cache(tokens, names_filter=[hook_name], stop_at_layer=stop_at_layer, **inputs)
    return cache[hook_name]


class ModelAboveHook:
    """The model above a residual hook, as a differentiable function of the residual stream."""

    def __init__(self, model: Any, hook_name: str) -> None:
        self.model = model
        self.hook_name = hook_name
        self.n_below = n_blocks_below(hook_name, model.cfg.n_layers)

    def __call__(
        self,
        tokens: Int[Tensor, "batch pos"],
        residual: Float[Tensor, "batch pos d_model"],
        positions: Bool[Tensor, "batch pos"],
    ) -> Float[Tensor, "n_positions d_vocab"]:
        """Next-token logits at the chosen positions, row by row; only these are unembedded."""
        with only_positions(self.model.unembed, positions):
            if self.n_below == 0:
                # No block below to take the residual from: put it in at the hook.
                given = [(self.hook_name, lambda _value, hook: residual)]  # noqa: ARG005 - the host passes hook by name
                logits = self.model.run_with_hooks(tokens, fwd_hooks=given)
            elif isinstance(self.model, HookedBridge):
                with blocks_replaced(self.model.blocks[: self.n_below], residual):
                    logits = self.model(tokens)
            else:
                logits = self.model(residual, start_at_layer=self.n_below)
        return logits.reshape(-1, logits.shape[-1])


@contextmanager
def only_positions(unembed: nn.Module, positions: Bool[Tensor, "batch pos"]) -> Iterator[None]:
    """Unembed the chosen positions alone, as one row."""

    def gather(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][positions].unsqueeze(0), *args[1:])

    handle = unembed.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def blocks_replaced(blocks: Any, residual: Tensor) -> Iterator[None]:
    """Let the blocks below the hook pass the given residual on, so that the host's own forward runs the rest.

    The host keeps its masks, rotary embeddings, layer indices and final norm; nothing of it is written again.
    """
    # object's own setters: a bridge component passes plain attributes on to the transformers module it wraps.
    with ExitStack() as stack:
        for block in blocks:
            object.__setattr__(block, "forward", lambda *_args, **_kwargs: residual)
            stack.callback(object.__delattr__, block, "forward")
        yield
