from dataclasses import replace

import pytest
import torch
from made_edits import HOOK, plain_logits, random_edit

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.interventions import Clamp
from sae_lens_contrastive.unlearning.corpus import document_contexts
from sae_lens_contrastive.unlearning.measures import RelearningOptions, SaeEdit, WeightEdit, relearning
from sae_lens_contrastive.unlearning.measures.relearning import _take_step, trainable_weights
from sae_lens_contrastive.unlearning.prompts import PromptSpec

PROMPT = PromptSpec(option_template="{option}")


@pytest.fixture
def edit(planted):
    """A clamp of what fires on the stem of the forget questions."""
    return SaeEdit(planted, (0,), Clamp(400.0))


def plain_accuracy(model, questions, edit):
    n_right = 0
    for question in questions:
        tokens = [model.tokenizer.bos_token_id, *encode_text(model.tokenizer, question.stems[0])]
        logits = plain_logits(model, tokens, edit)[-1]
        scores = [logits[encode_text(model.tokenizer, option)[0]].item() for option in question.options]
        n_right += scores.index(max(scores)) == question.answer_index
    return n_right / len(questions)


def snapshot(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def is_as_before(model, weights):
    return all(
        torch.equal(weight, weights[name]) and not weight.requires_grad and weight.grad is None
        for name, weight in model.named_parameters()
    )


def test_forgotten_answers_return_under_the_edit_and_the_weights_are_put_back(tiny, forget_questions, edit):
    before = snapshot(tiny)
    examples = forget_questions[:8]
    # Of the same stem and options, so that what is learned from the examples holds for them.
    held_out = [replace(question, id=f"{question.id}/again") for question in examples]
    options = RelearningOptions(n_examples=8, n_steps=11, lr=3e-3)
    result = relearning(tiny, HOOK, edit, examples, held_out, PROMPT, options, seed=0, batch_tokens=20)
    assert result.steps == [0, 1, 2, 4, 8, 11]
    assert result.n_examples == result.n_questions == 8
    assert result.unedited_accuracy == 1
    assert result.accuracy[0] == plain_accuracy(tiny, held_out, edit) < 0.6
    assert result.accuracy[-1] > result.accuracy[0] + 0.25
    assert result.loss[-1] < 0.8 * result.loss[0]
    assert is_as_before(tiny, before)
    assert all(weight.grad is None for weight in edit.sae.parameters())


def test_the_loss_is_that_of_the_answers_of_a_seeded_few(tiny, forget_questions, edit):
    def loss_of(seed):
        options = RelearningOptions(n_examples=3, n_steps=1, lr=1e-5)
        run = relearning(tiny, HOOK, edit, forget_questions, forget_questions[:2], PROMPT, options, seed=seed)
        assert run.n_examples == 3
        return run.loss[0]

    tokens = [tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, "Q")]
    log_probs = plain_logits(tiny, tokens, edit)[-1].log_softmax(-1)
    losses = [-log_probs[encode_text(tiny.tokenizer, q.answer)[0]].item() for q in forget_questions]
    sums = {round((a + b + c) / 3, 4) for a in losses for b in losses for c in losses}
    seeded = [loss_of(seed) for seed in (0, 0, 1)]
    assert seeded[0] == seeded[1] != seeded[2]
    assert min(abs(seeded[0] - value) for value in sums) < 2e-4


@pytest.fixture
def question(forget_questions):
    return replace(
        forget_questions[0], stems=("thing is", "another phrasing"), options=("q", "mno", "mn"), answer_index=1
    )


def test_the_loss_of_an_answer_is_the_sum_over_its_tokens(tiny, question):
    edit = random_edit()
    options = RelearningOptions(n_examples=1, n_steps=1, lr=1e-5)
    result = relearning(tiny, HOOK, edit, [question], [question], PROMPT, options, seed=0)
    stem = [tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, "thing is")]
    ending = encode_text(tiny.tokenizer, "mno")
    log_probs = plain_logits(tiny, stem + ending, edit).log_softmax(-1)
    expected = -sum(log_probs[len(stem) - 1 + i, token].item() for i, token in enumerate(ending))
    assert result.loss[0] == pytest.approx(expected, abs=1e-4)


def test_by_letter_the_letter_in_the_published_order_is_learned(tiny, question):
    edit = random_edit()
    prompt = PromptSpec(
        style="letter", template="{stem}\n{options}\n:", n_orders=6, letter_forms=["{letter}", "{letter}"]
    )
    options = RelearningOptions(n_examples=1, n_steps=8, lr=3e-3)
    result = relearning(tiny, HOOK, edit, [question], [question], prompt, options, seed=0)
    text = "thing is\nA. q\nB. mno\nC. mn\n:"
    logits = plain_logits(tiny, [tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, text)], edit)[-1]
    # The likelier of two forms counts, which here are the same: they do not add up.
    letter = encode_text(tiny.tokenizer, "B")[0]
    assert result.loss[0] == pytest.approx(-logits.log_softmax(-1)[letter].item(), abs=1e-4)
    assert result.accuracy[-1] == 1
    assert result.loss[-1] < 0.8 * result.loss[0]


def test_text_is_learned_token_by_token(tiny, question):
    edit = random_edit()
    contexts = document_contexts(tiny.tokenizer, ["A text to learn.", "Another."], context_size=30, max_tokens=1000)
    options = RelearningOptions(material="text", n_examples=2, n_steps=4, lr=3e-3)
    result = relearning(tiny, HOOK, edit, contexts, [question], PROMPT, options, seed=0)
    losses = []
    for tokens in contexts.tokens:
        log_probs = plain_logits(tiny, tokens, edit).log_softmax(-1)
        losses.append(-sum(log_probs[i - 1, tokens[i]].item() for i in range(1, len(tokens))) / (len(tokens) - 1))
    assert result.n_examples == 2
    assert result.loss[0] == pytest.approx(sum(losses) / 2, abs=1e-4)
    assert result.loss[-1] < result.loss[0]


def test_relearning_goes_on_from_edited_weights_and_puts_back_the_models_own(tiny, question):
    before = snapshot(tiny)
    name = next(name for name in before if name.endswith("down_proj._original_component.weight"))
    edit = WeightEdit({name: before[name] + 0.5 * torch.randn(before[name].shape, generator=torch.Generator())})
    options = RelearningOptions(n_examples=1, n_steps=1, lr=1e-5)
    result = relearning(tiny, HOOK, edit, [question], [question], PROMPT, options, seed=0)
    plain = relearning(tiny, HOOK, WeightEdit({}), [question], [question], PROMPT, options, seed=0)
    with edit.in_place(tiny):
        moved = relearning(tiny, HOOK, WeightEdit({}), [question], [question], PROMPT, options, seed=0)
    assert result.loss[0] == moved.loss[0] != plain.loss[0]
    assert is_as_before(tiny, before)


def test_small_steps_add_up_in_half_precision():
    # Below 1 bfloat16 knows multiples of 2^-8 = 0.0039: a step of 1e-4 alone is rounded away, 40 are not.
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    master = weight.detach().float()
    optimizer = torch.optim.AdamW([master], lr=1e-4, weight_decay=0.0)
    for _ in range(40):
        _take_step(optimizer, [weight], [master], [torch.ones(1, dtype=torch.bfloat16)])
    assert weight.item() == 1 - 2**-8


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_weights_are_put_back_after_an_interruption(tiny, error):
    before = snapshot(tiny)
    with pytest.raises(error), trainable_weights(tiny) as weights:  # noqa: PT012 - what happens inside is the test
        assert all(weight.requires_grad for weight in weights)
        with torch.no_grad():
            for weight in weights:
                weight += 1
        raise error
    assert is_as_before(tiny, before)
