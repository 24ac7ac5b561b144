import warnings
from dataclasses import replace

import pytest
import torch
from made_edits import FEATURES, HOOK, plain_logits, random_edit, random_sae
from transformer_lens import HookedTransformer, HookedTransformerConfig

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.interventions import Intervention, Zero
from sae_lens_contrastive.unlearning.measures import SaeEdit
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel
from sae_lens_contrastive.unlearning.prompts import Prompt, Spot

TEXTS = ["<bos>a text longer than a window", "<bos>shorter <end_of_turn> it is", "<bos>no"]


@pytest.fixture
def sequences(tiny):
    return [encode_text(tiny.tokenizer, text) for text in TEXTS]


@pytest.mark.parametrize(
    "edit", [None, random_edit(), random_edit(special_tokens=True)], ids=["none", "plain", "special"]
)
def test_logits_are_those_of_one_sequence_at_a_time(tiny, sequences, edit):
    edited = EditedModel(tiny, HOOK, edit)
    batch = edited.batch(sequences, [len(sequence) for sequence in sequences])
    positions = torch.zeros_like(batch.tokens, dtype=torch.bool)
    positions[0, 5] = positions[1, 12] = positions[1, 3] = positions[2, 1] = True
    with torch.no_grad():
        got = edited.logits(batch, positions)
    expected = [plain_logits(tiny, sequence, edit) for sequence in sequences]
    expected = torch.stack([expected[0][5], expected[1][3], expected[1][12], expected[2][1]])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


@pytest.fixture
def hooked_transformer(tiny):
    config = HookedTransformerConfig(
        n_layers=2, d_model=32, n_ctx=64, d_head=8, n_heads=4, d_vocab=261, act_fn="gelu", seed=0
    )
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(config).requires_grad_(False)
    model.tokenizer = tiny.tokenizer
    return model


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"])
def test_a_hooked_transformer_is_edited_too(hooked_transformer, sequences, hook):
    edited = EditedModel(hooked_transformer, hook, random_edit())
    batch = edited.batch(sequences, [len(sequence) for sequence in sequences])
    got = edited.logits(batch, batch.editable)
    expected = [plain_logits(hooked_transformer, sequence, random_edit(), hook) for sequence in sequences]
    expected = [rows[batch.editable[i, : len(rows)]] for i, rows in enumerate(expected)]
    torch.testing.assert_close(got, torch.cat(expected), rtol=0, atol=1e-4)


def test_an_edit_of_special_tokens_differs(tiny, sequences):
    spared, edited = (plain_logits(tiny, sequences[1], random_edit(special_tokens=s)) for s in (False, True))
    assert (spared - edited).abs().max() > 1e-3


def test_spots_are_read_in_their_order(tiny, sequences):
    spots = [[Spot(4, 70, 0), Spot(2, 71, 1), Spot(4, 72, 1)], [Spot(3, 80, 0)]]
    prompts = [Prompt(i, 0, tuple(sequences[i]), spots[i]) for i in (0, 1)]
    edit = random_edit()
    with torch.no_grad():
        got = EditedModel(tiny, HOOK, edit).spot_log_probs(prompts)
    log_probs = [plain_logits(tiny, sequences[i], edit).log_softmax(-1) for i in (0, 1)]
    expected = [torch.stack([log_probs[i][spot.position, spot.token] for spot in spots[i]]) for i in (0, 1)]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


class Witness(Intervention):
    """Remembers what it was told."""

    def __call__(self, acts, tokens, /):
        self.prompt, self.counts = tokens.prompt, tokens.counts
        return acts


def test_a_gate_sees_each_sequence_as_a_prompt_that_ends_where_the_question_ends(tiny, sequences):
    witness = Witness()
    edited = EditedModel(tiny, HOOK, SaeEdit(random_sae(), FEATURES, witness, special_tokens=True))
    # Position 0 is not editable, the special token is; it and what comes after the question have no say.
    batch = edited.batch([sequences[1][:13], sequences[2]], n_asked=[11, 2])
    with torch.no_grad():
        edited.logits(batch, batch.editable)
    assert sequences[1][9] in tiny.tokenizer.all_special_ids
    assert witness.prompt.tolist() == [0] * 12 + [1] * 2
    counts = [True] * 8 + [False, True, False, False]
    assert witness.counts.tolist() == [*counts, True, False]


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.layers.3.mlp.up_proj.weight"])
def test_gradients_reach_the_weights_below_the_hook_through_the_edit(tiny, sequences, name):
    # Switched off, unlike clamped, an activation changes without a jump.
    edited = EditedModel(tiny, HOOK, SaeEdit(random_sae(), FEATURES, Zero()))
    prompt = Prompt(0, 0, tuple(sequences[0]), [Spot(20, 70, 0)])
    weight = tiny.original_model.get_parameter(name)
    before = weight.detach().clone()
    weight.requires_grad_(True)
    try:
        (gradient,) = torch.autograd.grad(edited.spot_log_probs([prompt])[0].sum(), weight)
        (unedited,) = torch.autograd.grad(EditedModel(tiny, HOOK).spot_log_probs([prompt])[0].sum(), weight)
        values = []
        with torch.no_grad():
            for size in (5e-4, -5e-4):
                weight.copy_(before + size * gradient / gradient.norm())
                values.append(edited.spot_log_probs([prompt])[0].item())
    finally:
        with torch.no_grad():
            weight.copy_(before)
        weight.requires_grad_(False)
    assert (values[0] - values[1]) / 1e-3 == pytest.approx(gradient.norm().item(), rel=0.03)
    assert (gradient - unedited).norm() > 0.05 * gradient.norm()


def test_what_cannot_be_edited_is_refused(tiny):
    with pytest.raises(ConfigError, match="Unknown residual-stream hook"):
        EditedModel(tiny, "blocks.3.hook_mlp_out")
    edit = random_edit()
    edit.sae.cfg.normalize_activations = "layer_norm"
    with pytest.raises(UserError, match="normalize_activations"):
        EditedModel(tiny, HOOK, replace(edit, features=(1,)))
