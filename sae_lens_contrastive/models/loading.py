"""A hooked model with its tokenizer, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from sae_lens.constants import DTYPE_MAP
from safetensors import SafetensorError
from transformer_lens.loading_from_pretrained import get_official_model_name, make_model_alias_map
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sae_lens_contrastive.errors import UserError, first_line, unknown_choice
from sae_lens_contrastive.models.bridge import HookedBridge
from sae_lens_contrastive.models.embedded import EMBEDDED_MODELS, embedded_model_folder

_TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken")
HUB_TIMEOUT = 10.0
"""Seconds the hub has for its first answer."""


def load_model(
    name: str, *, device: str = "cpu", dtype: str = "float32", **from_pretrained_kwargs: Any
) -> HookedBridge:
    """Load a model by name as a TransformerBridge with its tokenizer; `model.cfg.model_name` is the given name.

    `name` is a TransformerLens name or alias (`google/gemma-2-2b`, `gemma-2-2b-it`, ...), a local Hugging Face folder,
    or an embedded model (`smollm2-135m-instruct`, `tiny-random-gemma-2`). Hooks have TransformerLens' names:
    `blocks.L.hook_resid_post` works for all of them. `from_pretrained_kwargs` go to transformers.

    Raises `UserError` for an unknown name, dtype or device, a folder without a model, or a hub that cannot be reached.
    """
    check_model_name(name)
    torch_dtype = DTYPE_MAP.get(dtype)
    if torch_dtype is None:
        raise unknown_choice("dtype", dtype, ("float32", "bfloat16", "float16"))
    check_device(device)
    source = _source(name)
    no_hub = None if Path(source).is_dir() else why_no_hub(partial(HfApi().model_info, source))
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=no_hub is not None)
            hf_model: Any = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=torch_dtype,
                **{"local_files_only": no_hub is not None, **from_pretrained_kwargs},
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(_loading_failed(name, source, error, no_hub)) from error
    bridge = HookedBridge.from_hf_model(hf_model.to(device), tokenizer, source, device)
    bridge.cfg.model_name = name
    bridge.requires_grad_(False)
    return bridge


def check_model_name(name: str) -> None:
    """Raise `UserError` for a name that is no embedded model, folder or TransformerLens name; loads nothing."""
    if name in EMBEDDED_MODELS:
        return
    if Path(name).is_dir():
        _check_folder(Path(name))
        return
    if name.lower() in make_model_alias_map():
        return
    raise unknown_choice(
        "model",
        name,
        (*EMBEDDED_MODELS, "google/gemma-2-2b", "google/gemma-2-2b-it"),
        fix="Any other TransformerLens name and any local Hugging Face folder work too.",
    )


def device_type(device: str) -> str:
    """Kind of a device, `cuda` for `cuda:1`; `UserError` for a malformed one, present or not."""
    try:
        return torch.device(device).type
    except RuntimeError:
        raise unknown_choice("device", device, ("cpu", "cuda", "cuda:N", "mps")) from None


def check_device(device: str) -> None:
    """Raise `UserError` for a device that is malformed or absent."""
    if not is_present(device):
        n_gpus = torch.cuda.device_count() if device_type(device) == "cuda" else 0
        fix = f"device: cuda:N with N below {n_gpus}, or device: cpu" if n_gpus else "device: cpu"
        raise UserError(f"Device {device!r} is not available on this machine. Use {fix}.")


def is_present(device: str) -> bool:
    """Whether this machine has a device; `UserError` for a malformed one."""
    kind = device_type(device)
    if kind == "cuda":
        return torch.cuda.is_available() and (torch.device(device).index or 0) < torch.cuda.device_count()
    return kind == "cpu" or (kind == "mps" and torch.backends.mps.is_available())


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"'{folder}' is a folder without config.json. Give one saved by `model.save_pretrained`.")
    # transformers makes an empty tokenizer, which knows no word, for a folder that has none.
    if not any(path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)):
        raise UserError(f"The folder {folder} holds no tokenizer. Save it there with `tokenizer.save_pretrained`.")


class quiet_transformers:  # noqa: N801 - used as a context manager, like contextlib.suppress
    """Hide transformers' own loading bars for the duration of a block; ours tell the same."""

    def __enter__(self) -> None:
        self.was_enabled = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_exception: object) -> None:
        if self.was_enabled:
            transformers_logging.enable_progress_bar()


def _source(name: str) -> str:
    if name in EMBEDDED_MODELS:
        with quiet_transformers():
            return str(embedded_model_folder(name))
    if Path(name).is_dir():
        return name
    return get_official_model_name(name)


def why_no_hub(ask: Callable[..., Any]) -> str | None:
    """Why the hub gives no answer to `ask`, a call that takes a `timeout` in seconds, or None if it does.

    One request without retries: the libraries would try for most of a minute, for cached models too.
    """
    try:
        ask(timeout=HUB_TIMEOUT)
    except HfHubHTTPError:
        return None  # An answer, if not a kind one; who loads tells what it means.
    except Exception as error:  # the hub client's HTTP library, and so the type, differs between its versions
        return first_line(error)
    return None


def _loading_failed(name: str, source: str, error: Exception, no_hub: str | None) -> str:
    if Path(source).is_dir():
        return f"The folder {source} does not hold a loadable model and tokenizer: {error}"
    others = "give a local folder, or the embedded model 'smollm2-135m-instruct', which needs no hub."
    if no_hub is not None:
        return (
            f"The model {name!r} is not in the local cache and the Hugging Face hub does not answer: {no_hub} "
            f"Check the network, or {others}"
        )
    return (
        f"The model {name!r} could not be loaded from the Hugging Face hub: {first_line(error)} "
        f"If it is gated, such as Gemma, accept its licence on the hub and run `hf auth login`; or {others}"
    )
