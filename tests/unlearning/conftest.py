"""Questions whose answers are what the tiny Gemma-2 says, and an SAE written by hand."""

from __future__ import annotations

import json
import random
from string import ascii_lowercase

import pytest
import torch
from made_records import native_record
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.models import TINY_GEMMA_2, residual_at_hook
from sae_lens_contrastive.unlearning.spec import EvalSpec
from sae_lens_contrastive.unlearning.subject import SaeUnderTest

HOOK = "blocks.19.hook_resid_post"
FORGET_STEM, RETAIN_STEM = "Q", "Z"


@pytest.fixture(scope="session")
def forget_questions(tiny):
    return _questions(tiny, "cities", FORGET_STEM, 16)


@pytest.fixture(scope="session")
def retain_questions(tiny):
    return _questions(tiny, "metals", RETAIN_STEM, 12) + _questions(tiny, "plants", RETAIN_STEM, 6)


def _questions(model, domain, stem, n):
    """Questions of one stem with options of one byte; the answer is the option that the model finds likeliest."""
    tokens = torch.tensor([[model.tokenizer.bos_token_id, *encode_text(model.tokenizer, stem)]])
    with torch.no_grad():
        logits = model(tokens)[0, -1]
    rng = random.Random(domain)
    questions = []
    for i in range(n):
        options = rng.sample(ascii_lowercase, 4)
        options.sort(key=lambda option: -logits[encode_text(model.tokenizer, option)[0]])
        questions.append(
            Question.with_distractors(
                id=f"{domain}/key/{i}",
                domain=domain,
                relation="key",
                entity=f"{domain}{i}",
                stems=(stem,),
                answer=options[0],
                distractors=tuple(options[1:]),
                split="select" if i % 2 else "held_out",
            )
        )
    return questions


@pytest.fixture
def files(tmp_path, forget_questions, retain_questions):
    """A folder with question files and corpora of both sides."""
    for name, questions in (("forget", forget_questions), ("retain", retain_questions)):
        _write_jsonl(tmp_path / f"{name}.jsonl", [native_record(question) for question in questions])
        _write_jsonl(
            tmp_path / f"{name}_corpus.jsonl",
            [{"id": q.id, "domain": q.domain, "entities": [q.entity], "text": f"{q.stems[0]}.."} for q in questions],
        )
    return tmp_path


def _write_jsonl(path, records):
    path.write_text("\n".join(json.dumps(record) for record in records))


@pytest.fixture
def spec(make_spec):
    return make_spec()


@pytest.fixture
def make_spec(files):
    """The specification of these files, with changes."""
    values = {
        "model": TINY_GEMMA_2,
        "forget_domain": "cities",
        "forget_questions": [str(files / "forget.jsonl")],
        "retain_questions": [str(files / "retain.jsonl")],
        "forget_corpora": [str(files / "forget_corpus.jsonl")],
        "retain_corpora": [str(files / "retain_corpus.jsonl")],
        "prompt": {"option_template": "{option}"},
        "context_size": 16,
        "max_corpus_tokens": 200,
        "selectors": {"firing_rate": {"retain_threshold": [0.01, 0.5]}},
        "n_features": [1, 2],
        "interventions": {"clamp": {"multiplier": [1.0, 400.0]}},
        "measures": {"text_effects": None, "random_baseline": None},
        "min_known_questions": 2,
        "n_bootstrap": 200,
    }
    return lambda **changes: EvalSpec.model_validate({**values, **changes})


def stem_detector(model, d_sae=8, hook_name=HOOK):
    """An SAE whose feature 0 fires exactly on the forget stem, feature 1 on the retain stem, no other anywhere.

    A direction is chosen by least squares so that the stem projects to 1 and everything else near 0.
    """
    tokenizer = model.tokenizer
    bos = tokenizer.bos_token_id
    texts = (FORGET_STEM, RETAIN_STEM, ".", f"{FORGET_STEM}..", f"{RETAIN_STEM}..")
    rows = torch.cat(
        [residual_at_hook(model, hook_name, torch.tensor([[bos, *encode_text(tokenizer, t)]]))[0, 1:] for t in texts]
    )
    sae = StandardSAE(StandardSAEConfig(d_in=model.cfg.d_model, d_sae=d_sae, apply_b_dec_to_input=False))
    sae.cfg.metadata.hook_name = hook_name
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_enc.fill_(-0.5)
        generator = torch.Generator().manual_seed(0)
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(sae.W_dec.shape, generator=generator), dim=1))
        for feature in (0, 1):
            is_stem = torch.isclose(rows, rows[feature], atol=1e-4).all(dim=1).float()
            sae.W_enc[:, feature] = torch.linalg.lstsq(rows, is_stem[:, None], driver="gelsd").solution[:, 0]
    return sae


@pytest.fixture
def planted(tiny):
    return stem_detector(tiny)


@pytest.fixture
def planted_knowledge(tiny):
    """An SAE whose feature 0 writes what the model knows of the forget stem, where it is unembedded.

    d solves ⟨W_U[letter], d⟩ = logit of the letter: to subtract enough of it turns the order of all options around.
    """
    sae = stem_detector(tiny, hook_name="blocks.25.hook_resid_post")
    tokens = torch.tensor([[tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, FORGET_STEM)]])
    letters = [encode_text(tiny.tokenizer, letter)[0] for letter in ascii_lowercase]
    with torch.no_grad():
        logits = tiny(tokens)[0, -1, letters]
        unembed = tiny.original_model.get_output_embeddings().weight[letters]
        direction = torch.linalg.lstsq(unembed, (logits - logits.mean())[:, None], driver="gelsd").solution[:, 0]
        sae.W_dec[0] = torch.nn.functional.normalize(direction, dim=0)
    return sae


@pytest.fixture
def under_test(tmp_path):
    def save(sae, name="sae", **facts):
        folder = tmp_path / name
        sae.save_model(folder)
        return SaeUnderTest(**{"variant": "planted", "seed": 3, "path": folder, **facts})

    return save
