"""The model in two halves around a residual hook, for rows that pack several continuations of one trunk.

A row holds a trunk and then branches; a token sees the trunk and the earlier tokens of its own branch, as if every
branch followed the trunk in a sequence of its own. Above the hook, what comes before a row's first edited token is run
once and shared by all edits; in the last block only the tokens whose logits are wanted go beyond keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_lens_contrastive.models.bridge import HookedBridge
from sae_lens_contrastive.models.residual import (
    ModelAboveHook,
    blocks_replaced,
    n_blocks_below,
    only_positions,
    residual_at_hook,
)

_TRIAL_WINDOW = 64


@dataclass(frozen=True)
class PackedRows:
    """A batch of rows, padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    """Tokens; pads repeat a token of the vocabulary."""
    positions: Int[Tensor, "batch pos"]
    """Place of each token in its own sequence: a branch goes on where the trunk ends."""
    branch: Int[Tensor, "batch pos"]
    """0 on the trunk, k on branch k, -1 on pads."""

    @staticmethod
    def of(
        tokens: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        branch: Sequence[Sequence[int]],
        device: torch.device | str,
    ) -> PackedRows:
        """Pad rows of unequal length."""
        width = max(len(row) for row in tokens)

        def padded(rows: Sequence[Sequence[int]], fill: Callable[[Sequence[int]], int]) -> Tensor:
            filled = [[*row, *[fill(row)] * (width - len(row))] for row in rows]
            return torch.tensor(filled, dtype=torch.long, device=device)

        return PackedRows(
            padded(tokens, lambda row: row[-1]), padded(positions, lambda row: row[-1]), padded(branch, lambda _: -1)
        )

    def mask(self, past: KeyValues | None = None, window: int | None = None) -> Bool[Tensor, "batch 1 pos key"]:
        """Which earlier tokens each token sees, those of a past included, which all belong to the trunk.

        `window` limits them to so many positions, the token's own among them.
        """
        width = self.tokens.shape[1]
        query, key = self.branch.unsqueeze(2), self.branch.unsqueeze(1)
        earlier = torch.ones(width, width, dtype=torch.bool, device=self.tokens.device).tril()
        sees = earlier & ((key == 0) | (key == query))
        place = self.positions.unsqueeze(1).expand(-1, width, -1)
        if past is not None:
            slots = torch.arange(past.width, device=self.tokens.device)
            before = (slots < past.lengths.unsqueeze(1)).unsqueeze(1).expand(-1, width, -1)
            sees = torch.cat([before, sees], dim=2)
            place = torch.cat([slots.expand(len(self.tokens), width, -1), place], dim=2)
        if window is not None:
            sees = sees & (self.positions.unsqueeze(2) - place < window)
        return sees.unsqueeze(1)


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of rows that come before others, at every layer above the hook."""

    layers: dict[int, tuple[Tensor, Tensor]]
    """Keys and values [batch, n_heads, pos, d_head] by layer."""
    lengths: Int[Tensor, " batch"]
    """Tokens of each row; what follows them is padding."""

    @property
    def width(self) -> int:
        """Tokens of a row, pads included."""
        return next(iter(self.layers.values()))[0].shape[2]

    def rows(self, index: Int[Tensor, " rows"]) -> KeyValues:
        """Rows by index; a row may be taken several times."""
        layers = {layer: (keys[index], values[index]) for layer, (keys, values) in self.layers.items()}
        return KeyValues(layers, self.lengths[index])


class PackedModel:
    """Both halves of a TransformerBridge around a residual hook, for packed rows."""

    def __init__(self, model: HookedBridge, hook_name: str) -> None:
        self.model = model
        self.hook_name = hook_name
        self.n_below = n_blocks_below(hook_name, model.cfg.n_layers)
        self.last = model.cfg.n_layers - 1
        original: Any = model.original_model
        config = original.config.get_text_config()
        self.window: int | None = getattr(config, "sliding_window", None)
        """Positions that a token of a sliding-window layer sees."""
        self._layer_types: set[str] = set(getattr(config, "layer_types", None) or ())

    @torch.no_grad()
    def residual(self, rows: PackedRows) -> Float[Tensor, "batch pos d_model"]:
        """Residual stream at the hook."""
        return residual_at_hook(
            self.model, self.hook_name, rows.tokens, attention_mask=self._mask(rows), position_ids=rows.positions
        )

    @torch.no_grad()
    def keys_and_values(self, rows: PackedRows, residual: Float[Tensor, "batch pos d_model"]) -> KeyValues:
        """What later tokens need of these, which must lie on the trunk."""
        recorder = _Recorder(self.last)
        with blocks_replaced(self.model.blocks[: self.n_below], residual), suppress_stop():
            self._run(rows, self._mask(rows), recorder)
        return KeyValues(recorder.layers, (rows.branch >= 0).sum(dim=1))

    @torch.no_grad()
    def logits(
        self,
        rows: PackedRows,
        residual: Float[Tensor, "batch pos d_model"],
        wanted: Int[Tensor, "batch n_wanted"],
        past: KeyValues | None = None,
    ) -> Float[Tensor, "n_logits d_vocab"]:
        """Next-token logits at wanted places of every row, row by row; -1 fills up a row that wants fewer."""
        with ExitStack() as stack:
            stack.enter_context(blocks_replaced(self.model.blocks[: self.n_below], residual))
            stack.enter_context(_last_block_only(self.model.blocks[self.last], wanted.clamp(min=0), self.last, past))
            stack.enter_context(only_positions(self.model.unembed, wanted >= 0))
            logits = self._run(rows, self._mask(rows, past), _Continuation(past)).logits
        return logits.reshape(-1, logits.shape[-1])

    def _mask(self, rows: PackedRows, past: KeyValues | None = None) -> Tensor | dict[str, Tensor]:
        """One mask for all layers, or one for each type of layer, as transformers takes them."""
        if "sliding_attention" not in self._layer_types:
            return rows.mask(past, None if self._layer_types else self.window)
        kinds = {"full_attention": None, "sliding_attention": self.window}
        return {kind: rows.mask(past, window) for kind, window in kinds.items()}

    def _run(self, rows: PackedRows, mask: Tensor | dict[str, Tensor], cache: Any) -> Any:
        return self.model.original_model(
            input_ids=rows.tokens,
            attention_mask=mask,
            position_ids=rows.positions,
            past_key_values=cache,
            use_cache=True,
        )


def can_pack(model: Any, hook_name: str) -> bool:
    """Whether packed rows give a model's own logits: tried on a few tokens, since no list of architectures would last.

    False for a HookedTransformer, which takes no mask of ours, and for a hook with no block below or above it.
    """
    if not isinstance(model, HookedBridge) or n_blocks_below(hook_name, model.cfg.n_layers) in (0, model.cfg.n_layers):
        return False
    packed, above = PackedModel(model, hook_name), ModelAboveHook(model, hook_name)
    device = next(model.parameters()).device
    # A trunk that is longer than a short sliding window, a branch of two tokens and one of one.
    n_trunk = 4 + min(packed.window or 0, _TRIAL_WINDOW)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(min(256, int(model.cfg.d_vocab)), (n_trunk + 3,), generator=generator).tolist()
    positions = [*range(n_trunk), n_trunk, n_trunk + 1, n_trunk]
    branch = [0] * n_trunk + [1, 1, 2]
    rows, start, rest = (
        PackedRows.of([tokens[part]], [positions[part]], [branch[part]], device)
        for part in (slice(None), slice(n_trunk - 1), slice(n_trunk - 1, None))
    )
    try:
        residual = packed.residual(rows)
        past = packed.keys_and_values(start, residual[:, : n_trunk - 1])
        wanted = torch.tensor([[0, 2, 3]], device=device)
        found = packed.logits(rest, residual[:, n_trunk - 1 :], wanted, past)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        return False
    alone = []
    for ending in (tokens[n_trunk : n_trunk + 2], tokens[n_trunk + 2 :]):
        sequence = torch.tensor([[*tokens[:n_trunk], *ending]], device=device)
        ends = torch.zeros(sequence.shape, dtype=torch.bool, device=device)
        ends[0, [n_trunk - 1, -1]] = True
        alone.append(above(sequence, residual_at_hook(model, hook_name, sequence), ends))
    expected = torch.cat([alone[0], alone[1][1:]])
    tolerance = 1e-3 if expected.dtype == torch.float32 else 0.1
    return bool(((found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)).item())


class _StopForward(Exception):  # noqa: N818 - control flow, not an error
    """Nothing above is wanted."""


@contextmanager
def suppress_stop() -> Iterator[None]:
    """End a forward pass where a cache stops it."""
    try:
        yield
    except _StopForward:
        return


class _Recorder:
    """Stands in for a cache of transformers: keeps keys and values, and stops the pass once the last are there."""

    def __init__(self, last: int) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.last = last

    def get_seq_length(self, _layer: int = 0) -> int:
        """No past."""
        return 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep what a layer computed."""
        self.layers[layer] = (keys, values)
        if layer == self.last:
            raise _StopForward
        return keys, values


class _Continuation:
    """Stands in for a cache of transformers: puts the keys and values of a past before new ones."""

    def __init__(self, past: KeyValues | None) -> None:
        self.past = past

    def get_seq_length(self, _layer: int = 0) -> int:
        """Positions are given, so the past adds none."""
        return 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Past and new, in this order."""
        return _joined(self.past, layer, keys, values)


class _Fixed:
    """Stands in for a cache of transformers: gives the same keys and values whatever is computed."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys_and_values = keys, values

    def get_seq_length(self, _layer: int = 0) -> int:
        """Positions are given, so the past adds none."""
        return 0

    def update(self, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """The fixed ones."""
        return self.keys_and_values


def _joined(past: KeyValues | None, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    if past is None:
        return keys, values
    before_keys, before_values = past.layers[layer]
    return torch.cat([before_keys, keys], dim=2), torch.cat([before_values, values], dim=2)


@contextmanager
def _last_block_only(
    block: Any, wanted: Int[Tensor, "batch n_wanted"], layer: int, past: KeyValues | None
) -> Iterator[None]:
    """Let the last block compute keys and values of all tokens, and everything else of the wanted ones."""
    whole = block.forward
    row = torch.arange(len(wanted), device=wanted.device).unsqueeze(1)

    def at_wanted(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        recorder = _Recorder(layer)
        with suppress_stop():
            whole(hidden, *args, **{**kwargs, "past_key_values": recorder})
        fixed = _Fixed(*_joined(past, layer, *recorder.layers[layer]))
        cos, sin = (part.expand(len(wanted), -1, -1)[row, wanted] for part in kwargs["position_embeddings"])
        narrowed = {
            **kwargs,
            "past_key_values": fixed,
            "position_embeddings": (cos, sin),
            "attention_mask": kwargs["attention_mask"][row, 0, wanted].unsqueeze(1),
            "position_ids": kwargs["position_ids"][row, wanted],
        }
        return whole(hidden[row, wanted], *args, **narrowed)

    # object's own setters: a bridge component passes plain attributes on to the transformers module it wraps.
    object.__setattr__(block, "forward", at_wanted)
    try:
        yield
    finally:
        object.__delattr__(block, "forward")
