"""A TransformerBridge that answers to TransformerLens' own hook names."""

from __future__ import annotations

import re
from typing import Any

import torch
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from transformer_lens.ActivationCache import ActivationCache
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sae_lens_contrastive.errors import ConfigError, unknown_choice


class HookedBridge(SAETransformerBridge):
    """SAELens' bridge with hook aliases resolved both ways.

    On a TransformerBridge `blocks.L.hook_resid_post` is an alias of `blocks.L.hook_out`: a cache asked for the alias
    comes back empty and a hook on it can be dropped silently. Here the alias works in `run_with_cache` (also as the
    key of the cache) and in `run_with_hooks`.
    """

    @classmethod
    def from_hf_model(
        cls, hf_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, device: str
    ) -> HookedBridge:
        """Wrap a loaded transformers model; the attention implementation it was loaded with is kept."""
        bridge = SAETransformerBridge.boot_transformers(name, hf_model=hf_model, tokenizer=tokenizer, device=device)
        # SAELens itself re-classes the bridge that TransformerLens returns; its factory leaves no other seam.
        bridge.__class__ = cls
        bridge.eval()
        return bridge  # pyright: ignore[reportReturnType]

    def run_with_cache(self, *args: Any, names_filter: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """Run the model and cache activations under the names that were asked for, aliases included."""
        asked = [names_filter] if isinstance(names_filter, str) else names_filter
        if not isinstance(asked, list):
            return super().run_with_cache(*args, names_filter=names_filter, **kwargs)
        canonical = {name: self._canonical(name) for name in asked}
        output, cache = super().run_with_cache(*args, names_filter=list(canonical.values()), **kwargs)
        named = {name: cache[hook] for name, hook in canonical.items() if hook in cache}
        return output, ActivationCache(named, self) if isinstance(cache, ActivationCache) else named

    def run_with_hooks(self, *args: Any, fwd_hooks: Any = (), bwd_hooks: Any = (), **kwargs: Any) -> Any:
        """Run the model with temporary hooks, aliases included."""
        return super().run_with_hooks(
            *args,
            fwd_hooks=self._canonical_hooks(fwd_hooks),
            bwd_hooks=self._canonical_hooks(bwd_hooks),
            **kwargs,
        )

    def _canonical(self, name: str) -> str:
        resolved = self._resolve_hook_name(name)
        if resolved not in self.hook_dict:
            raise unknown_hook(name, self.cfg.n_layers)
        return resolved

    def _canonical_hooks(self, hooks: Any) -> list[tuple[Any, Any]]:
        return [(self._canonical(name) if isinstance(name, str) else name, function) for name, function in hooks]


def unknown_hook(hook_name: str, n_layers: int) -> ConfigError:
    """Build the error for a hook that a model of so many layers lacks."""
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", hook_name):
        layer = int(match.group(1))
        if layer >= n_layers:
            return ConfigError(
                f"Hook {hook_name!r} asks for layer {layer}, but the model has layers 0 to {n_layers - 1}. "
                f"For the same relative depth as 19 of 26 use blocks.{n_layers * 19 // 26}.{match.group(2)}."
            )
    common = [f"blocks.L.{kind}" for kind in ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out")]
    return unknown_choice(
        "hook",
        hook_name,
        common,
        fix=f"L is 0 to {n_layers - 1}; any other TransformerLens hook of the model works too.",
    )


def check_hook(model: Any, hook_name: str, d_in: int | None = None) -> None:
    """Raise `ConfigError` unless the model has the hook and, if given, activations of width `d_in` there."""
    if isinstance(model, HookedBridge):
        model._canonical(hook_name)
    elif hook_name not in model.hook_dict:
        raise unknown_hook(hook_name, model.cfg.n_layers)
    if d_in is None:
        return
    tokens = torch.zeros((1, 2), dtype=torch.long, device=model.cfg.device)
    with torch.inference_mode():
        _, cache = model.run_with_cache(tokens, names_filter=[hook_name])
    width = cache[hook_name].flatten(2).shape[-1]
    if width != d_in:
        raise ConfigError(f"d_in is {d_in}, but activations at {hook_name!r} have width {width}. Set d_in: {width}.")
