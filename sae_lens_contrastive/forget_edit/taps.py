"""Where models of different kinds show their tokens and their residual stream, however they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from sae_lens_contrastive.errors import ConfigError, UserError


@dataclass(frozen=True)
class Arriving:
    """Tokens that a model is about to read."""

    tokens: Int[Tensor, "batch pos"]
    """Their ids."""
    n_past: int
    """Tokens before them whose keys and values the model has kept."""
    attended: Bool[Tensor, "batch pos"] | None
    """Tokens that are no pads; None if none is one."""


class Remover(Protocol):
    """What takes a hook away again."""

    def remove(self) -> None:
        """Take the hook away."""
        ...


Read = Callable[[Arriving], None]
Edit = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"]]


def tap(model: Any, n_blocks: int, read: Read, edit: Edit) -> list[Remover]:
    """Have `read` see the tokens of every forward pass and `edit` replace the residual stream after `n_blocks` blocks.

    `model` is a HookedTransformer, a TransformerBridge or a causal language model of transformers; with a kept cache or
    without. Raises `UserError` for anything else.
    """
    if isinstance(model, HookedTransformer):
        return _tap_hooked(model, n_blocks, read, edit)
    return _tap_transformers(_transformers_model(model), n_blocks, read, edit)


def n_layers(model: Any) -> int:
    """Blocks of a model of one of these kinds; `UserError` for anything else."""
    if isinstance(model, HookedTransformer):
        return model.cfg.n_layers
    return int(_transformers_model(model).config.num_hidden_layers)


def _transformers_model(model: Any) -> PreTrainedModel:
    inner = model.original_model if isinstance(model, TransformerBridge) else model
    if not isinstance(inner, PreTrainedModel):
        raise UserError(
            f"A {type(model).__name__} cannot be edited. Give a HookedTransformer, a TransformerBridge or a causal "
            "language model of transformers."
        )
    return inner


def _tap_transformers(model: PreTrainedModel, n_blocks: int, read: Read, edit: Edit) -> list[Remover]:
    decoder: nn.Module = model.get_decoder()
    lists = [each for each in decoder.modules() if isinstance(each, nn.ModuleList) and len(each) == n_layers(model)]
    if not lists:
        raise UserError(f"The blocks of a {type(model).__name__} are not found. Load it with TransformerLens instead.")

    def see(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if tokens is None:
            raise UserError("The edit needs token ids, the model was given embeddings. Give input_ids.")
        past = kwargs.get("past_key_values")
        read(Arriving(tokens, 0 if past is None else int(past.get_seq_length()), _attended(tokens, kwargs)))

    return [decoder.register_forward_pre_hook(see, with_kwargs=True), _edited_after(lists[0], n_blocks, edit)]


def _tap_hooked(model: HookedTransformer, n_blocks: int, read: Read, edit: Edit) -> list[Remover]:
    arriving: list[Tensor] = []

    def see_tokens(_module: nn.Module, args: tuple[Any, ...]) -> None:
        arriving[:] = args[:1]

    def see_past(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        past = kwargs.get("past_kv_cache_entry")
        # Blocks that run without an embedding before them are not at the beginning of anything.
        if arriving:
            read(Arriving(arriving[0], 0 if past is None else past.past_keys.shape[1], _attended(arriving[0], kwargs)))

    return [
        model.embed.register_forward_pre_hook(see_tokens),
        model.blocks[0].register_forward_pre_hook(see_past, with_kwargs=True),
        _edited_after(model.blocks, n_blocks, edit),
    ]


def _edited_after(blocks: nn.ModuleList, n_blocks: int, edit: Edit) -> Remover:
    if n_blocks == 0:

        def change_input(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (edit(args[0]), *args[1:])

        return blocks[0].register_forward_pre_hook(change_input)

    def change_output(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return blocks[n_blocks - 1].register_forward_hook(change_output)


def _attended(tokens: Tensor, kwargs: dict[str, Any]) -> Tensor | None:
    mask = kwargs.get("attention_mask")
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ConfigError("Pads cannot be told from this attention mask. Give one of shape (batch, pos), or none.")
    return mask[:, -tokens.shape[1] :].bool()
