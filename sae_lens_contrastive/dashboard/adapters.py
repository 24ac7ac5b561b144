"""A model and an SAE as SAEDashboard asks for them, so that its activations are the package's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from jaxtyping import Float, Int
from sae_lens.saes.topk_sae import TopK
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from sae_lens_contrastive.dashboard.text_at_hook import TextAtHook
from sae_lens_contrastive.data.batching import encode_text


class ModelThatHasRead:
    """What SAEDashboard asks of a HookedTransformer: the hook's activations on the text, the vocabulary, W_U."""

    def __init__(self, model: Any, text: TextAtHook, labels: Sequence[str]) -> None:
        self.cfg = model.cfg
        self.W_U = model.W_U.detach()
        self.hook_dict = {text.hook_name: HookPoint()}
        self.tokenizer = SimpleNamespace(vocab=_Vocabulary(labels))
        self._residual = text.residual
        self._row = {_key(tokens): row for row, tokens in enumerate(text.tokens)}

    def run_with_hooks(
        self, tokens: Int[Tensor, "batch pos"], *, fwd_hooks: Iterable[tuple[str, Callable[..., Any]]], **_stop: Any
    ) -> None:
        """Give the hooks the residual stream of contexts of the text."""
        rows = [self._row[_key(context)] for context in tokens]
        for name, function in fwd_hooks:
            function(self._residual[rows].to(self.W_U.device), self.hook_dict[name])


class WholeEncoder:
    """An SAE that encodes with its whole dictionary, whatever its architecture, and is changed by nothing."""

    hook_z_reshaping_mode = False

    def __init__(self, sae: Any) -> None:
        self.cfg = sae.cfg
        self.device = sae.W_dec.device
        self.W_dec = sae.W_dec.detach()
        # What SAEDashboard looks for before it leaves an encoder whole; its k is not used.
        self.activation_fn = TopK(1)
        self._sae = sae

    def encode(self, residual: Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos d_sae"]:
        """Activations of all features."""
        return self._sae.encode(residual.to(self.W_dec.dtype))

    def fold_W_dec_norm(self) -> None:  # noqa: N802 - the host's name
        """Nothing is left to fold: `fold_decoder_norms` did where it can be done."""


class _Vocabulary:
    """A vocabulary in which two tokens may have the same text."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels

    def items(self) -> list[tuple[str, int]]:
        """Text and id of each token."""
        return [(label, token) for token, label in enumerate(self._labels)]


def vocabulary_texts(tokenizer: Any, d_vocab: int) -> list[str]:
    """Text that each token adds to one before it; for a piece of a character, its name in the vocabulary."""
    anchor = encode_text(tokenizer, "a")[-1]
    before = tokenizer.decode([anchor])
    n_tokens = min(len(tokenizer), d_vocab)
    pairs = [[anchor, token] for token in range(n_tokens)]
    texts = [text.removeprefix(before) for text in tokenizer.batch_decode(pairs, clean_up_tokenization_spaces=False)]
    names = tokenizer.convert_ids_to_tokens(list(range(n_tokens)))
    known = [str(name) if "\ufffd" in text else text for text, name in zip(texts, names, strict=True)]
    # Embeddings are often padded to a round number.
    return [*known, *[f"<{token}>" for token in range(n_tokens, d_vocab)]]


def _key(tokens: Int[Tensor, " pos"]) -> bytes:
    return tokens.cpu().numpy().astype("int64").tobytes()
