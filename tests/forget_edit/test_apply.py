"""An applied edit, however the model is run, does what the evaluation's does on whole sequences."""

import sys
import warnings
from itertools import chain
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from sae_lens_contrastive import UserError
from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.forget_edit import apply_forget_edit, generate, side_by_side
from sae_lens_contrastive.models import TINY_GEMMA_2
from sae_lens_contrastive.models.embedded import embedded_model_folder
from sae_lens_contrastive.unlearning.measures import SaeEdit
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel

PROMPTS = [
    "The capital of Peru",
    "Iron is a metal",
    "zz",
    "A cat sleeps",
    "Water boils at",
    "qxj vw",
    "One and two",
    "!?",
]
N_NEW = 6


@pytest.fixture
def prompts(tiny):
    return [[tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, text)] for text in PROMPTS]


def edited_model(model, sae, edit):
    return EditedModel(
        model, edit.hook_name, SaeEdit(sae, tuple(edit.features), edit.built(), edit.edit_special_tokens)
    )


def last_logits(edited, tokens, n_asked):
    batch = edited.batch([tokens], [n_asked])
    last = torch.zeros_like(batch.tokens, dtype=torch.bool)
    last[0, -1] = True
    with torch.no_grad():
        return edited.logits(batch, last)[0]


def continued(edited, tokens):
    """Greedy continuation, the whole sequence run again for every token."""
    said = list(tokens)
    for _ in range(N_NEW):
        said.append(int(last_logits(edited, said, len(tokens)).argmax()))
    return said[len(tokens) :]


def padded_left(prompts, pad=0):
    longest = max(map(len, prompts))
    tokens = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(tokens), torch.tensor(mask)


@pytest.fixture
def plain(model_cache):
    return AutoModelForCausalLM.from_pretrained(embedded_model_folder(TINY_GEMMA_2), dtype=torch.float32).eval()


@pytest.fixture
def hooked(model_cache):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(str(Path(__file__).parents[2] / "evals"))
        from saebench_peer_cases import SUBJECTS
        from saebench_peer_models import load_subject

        yield load_subject(SUBJECTS[TINY_GEMMA_2], "hooked_transformer", device="cpu", dtype="float32")
    for name in [name for name in sys.modules if name.startswith("saebench_")]:
        del sys.modules[name]


def test_a_gate_opens_for_some_prompts_only_and_changes_what_they_lead_to(tiny, sae, make_edit, prompts):
    with apply_forget_edit(tiny, sae, make_edit()) as applied:
        is_open = []
        for tokens in prompts:
            tiny(torch.tensor([tokens]))
            is_open.append(bool(applied.changed[0]))
    assert 0 < sum(is_open) < len(prompts)
    unedited, edited = EditedModel(tiny, make_edit().hook_name), edited_model(tiny, sae, make_edit())
    said = [(continued(unedited, tokens), continued(edited, tokens)) for tokens in prompts]
    assert all(a == b for (a, b), changed in zip(said, is_open, strict=True) if not changed)
    assert any(a != b for a, b in said)


@pytest.mark.parametrize("changes", [{}, {"intervention": "clamp", "gate_threshold": None}], ids=["gated", "clamp"])
def test_logits_are_those_of_the_evaluation(tiny, plain, hooked, sae, make_edit, prompts, changes):
    edit = make_edit(**changes)
    edited = edited_model(tiny, sae, edit)
    wanted = [last_logits(edited, tokens, len(tokens)) for tokens in prompts]
    for model in (tiny, plain, hooked):
        with apply_forget_edit(model, sae, edit, tiny.tokenizer), torch.no_grad():
            for tokens, logits in zip(prompts, wanted, strict=True):
                found = model(torch.tensor([tokens]))
                found = found.logits if model is plain else found
                assert torch.allclose(found[0, -1], logits, atol=1e-4)


@pytest.mark.parametrize("special_tokens", [False, True], ids=["spared", "edited"])
def test_special_tokens_have_no_say_in_a_gate(tiny, sae, make_edit, special_tokens):
    tokens = [tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, "<start_of_turn>Iron is<end_of_turn>")]
    special = [token in tiny.tokenizer.all_special_ids for token in tokens]
    edit = make_edit(edit_special_tokens=special_tokens)
    with apply_forget_edit(tiny, sae, edit) as applied:
        tiny(torch.tensor([tokens]))
        n_counted = len(applied._sequences.acts)
    assert sum(special) == 3
    assert (
        n_counted == len(tokens) - 3 == int(edited_model(tiny, sae, edit).batch([tokens], [len(tokens)]).counted.sum())
    )


@pytest.mark.parametrize("changes", [{}, {"intervention": "clamp", "gate_threshold": None}], ids=["gated", "clamp"])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_transformers_generates_the_same_in_a_padded_batch(plain, tiny, sae, make_edit, prompts, changes, use_cache):
    edit = make_edit(**changes)
    edited = edited_model(tiny, sae, edit)
    tokens, mask = padded_left(prompts)
    options = {
        "do_sample": False,
        "max_new_tokens": N_NEW,
        "pad_token_id": 0,
        "use_cache": use_cache,
        "eos_token_id": None,
    }
    with apply_forget_edit(plain, sae, edit, tiny.tokenizer):
        said = plain.generate(tokens, attention_mask=mask, **options)[:, tokens.shape[1] :]
    assert said.tolist() == [continued(edited, prompt) for prompt in prompts]


@pytest.mark.parametrize("kind", ["tiny", "hooked"])
def test_transformer_lens_generates_the_same(kind, request, tiny, sae, make_edit, prompts):
    model, edit = request.getfixturevalue(kind), make_edit()
    edited = edited_model(tiny, sae, edit)
    for tokens in prompts:
        with apply_forget_edit(model, sae, edit, tiny.tokenizer):
            said = model.generate(
                torch.tensor([tokens]), max_new_tokens=N_NEW, do_sample=False, stop_at_eos=False, verbose=False
            )
        assert said[0, len(tokens) :].tolist() == continued(edited, tokens)


def test_a_removed_edit_leaves_nothing(plain, tiny, sae, make_edit, prompts):
    tokens = torch.tensor([[*chain.from_iterable(prompts)]])
    with torch.no_grad():
        before = plain(tokens).logits
        with apply_forget_edit(plain, sae, make_edit(gate_threshold=0.0), tiny.tokenizer):
            assert not torch.equal(plain(tokens).logits, before)
        assert torch.equal(plain(tokens).logits, before)


def test_an_sae_with_long_decoder_rows_is_edited_alike(plain, tiny, sae, make_edit, prompts):
    edit, tokens = make_edit(gate_threshold=0.0), torch.tensor([[*chain.from_iterable(prompts)]])
    with torch.no_grad():
        with apply_forget_edit(plain, sae, edit, tiny.tokenizer):
            wanted = plain(tokens).logits
        sae.W_dec *= 4
        sae.W_enc /= 4
        sae.b_enc /= 4
        with apply_forget_edit(plain, sae, edit, tiny.tokenizer):
            assert torch.allclose(plain(tokens).logits, wanted, atol=1e-4)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.tensor(4.0))


def test_a_cache_from_before_the_edit_is_refused(plain, tiny, sae, make_edit, prompts):
    with torch.no_grad():
        past = plain(torch.tensor([prompts[0]]), use_cache=True).past_key_values
        with (
            apply_forget_edit(plain, sae, make_edit(), tiny.tokenizer),
            pytest.raises(UserError, match="has not seen how these sequences begin"),
        ):
            plain(torch.tensor([[5]]), past_key_values=past)


def test_embeddings_in_place_of_tokens_are_refused(plain, tiny, sae, make_edit):
    with (
        apply_forget_edit(plain, sae, make_edit(), tiny.tokenizer),
        pytest.raises(UserError, match=r"needs token ids.*Give input_ids"),
    ):
        plain(inputs_embeds=torch.zeros(1, 3, 32))


def test_what_is_no_language_model_is_refused(tiny, sae, make_edit):
    with pytest.raises(UserError, match=r"A Linear cannot be edited\. Give a HookedTransformer"):
        apply_forget_edit(torch.nn.Linear(2, 2), sae, make_edit(), tiny.tokenizer)


def test_a_model_without_a_tokenizer_needs_one(plain, sae, make_edit):
    with pytest.raises(UserError, match=r"must know them\. Give the model's tokenizer"):
        apply_forget_edit(plain, sae, make_edit())


def test_side_by_side_tells_where_nothing_was_changed(tiny, sae, make_edit):
    found = list(side_by_side(tiny, sae, make_edit(), PROMPTS, max_new_tokens=N_NEW))
    assert [each.prompt for each in found] == PROMPTS
    assert {each.changed for each in found} == {True, False}
    assert all(each.edited == each.unedited for each in found if not each.changed)
    assert any(each.edited != each.unedited for each in found if each.changed)


def test_a_chat_begins_with_the_bos_token_whether_its_template_writes_it_or_not(tiny, sae, make_edit, monkeypatch):
    put = []
    monkeypatch.setattr(generate, "greedy_continuations", lambda _model, tokens, _n: put.extend(tokens) or [[1]])
    turn = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    for template in (turn, "{{ bos_token }}" + turn):
        monkeypatch.setattr(tiny.tokenizer, "chat_template", template)
        list(side_by_side(tiny, sae, make_edit(), ["Hello"], chat=True))
    begun = [tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, "Hello")]
    assert put == [begun] * 4


def test_a_chat_without_a_template_is_refused(tiny, sae, make_edit, monkeypatch):
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match=r"has no chat template\. Leave the chat out"):
        list(side_by_side(tiny, sae, make_edit(), ["Hello"], chat=True))
