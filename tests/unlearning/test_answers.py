import pytest
import torch
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import Clamp, Zero, edit_residual
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.batching import encode_text
from sae_lens_contrastive.unlearning.prompts import PromptSpec

HOOK = "blocks.19.hook_resid_post"
FEATURES = [5, 17, 2, 40]


@pytest.fixture(scope="module")
def questions():
    """Stems of many lengths; the first ones have a second phrasing."""
    return [
        Question.with_distractors(
            id=f"q/{i}",
            domain="q",
            relation="r",
            entity=str(i),
            stems=(f"{'so ' * (i % 5)}thing {i} is", f"a thing {i} may be")[: 2 if i < 10 else 1],
            answer="mn"[i % 2],
            distractors=("opq"[i % 3], f"r{'s' * (i % 2)}"),
            split="select",
        )
        for i in range(24)
    ]


@pytest.fixture(scope="module")
def sae():
    torch.manual_seed(0)
    return TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4, rescale_acts_by_decoder_norm=True))


def plain_scores(model, questions, sae=None, features=(), intervention=None, phrasing=0):
    """Every option as a full prompt, alone, through the whole model, with an ordinary hook."""
    tokenizer, special = model.tokenizer, torch.tensor(model.tokenizer.all_special_ids)
    all_scores = []
    for question in questions:
        scores = []
        for option in question.options:
            stem = [tokenizer.bos_token_id, *encode_text(tokenizer, question.stems[phrasing])]
            ending = encode_text(tokenizer, f" {option}")
            tokens = torch.tensor([stem + ending])
            editable = ~torch.isin(tokens, special)
            editable[:, 0] = False

            def hook(residual, hook, editable=editable):
                return edit_residual(sae, residual, features, intervention, editable)

            with torch.no_grad():
                logits = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, hook)] if sae is not None else [])
            log_probs = logits[0].log_softmax(-1)
            scores.append(sum(log_probs[len(stem) - 1 + i, token].item() for i, token in enumerate(ending)))
        all_scores.append(scores)
    return all_scores


def right(questions, scores):
    return [score.index(max(score)) == q.answer_index for q, score in zip(questions, scores, strict=True)]


@pytest.fixture(scope="module")
def evaluator(tiny, questions):
    return QuestionEvaluator(tiny, HOOK, questions, PromptSpec(), batch_tokens=256)


def test_known_questions_are_right_under_every_phrasing(tiny, questions, evaluator):
    first = right(questions, plain_scores(tiny, questions))
    second = right(questions[:10], plain_scores(tiny, questions[:10], phrasing=1))
    expected = [q for i, q in enumerate(questions) if first[i] and (i >= 10 or second[i])]
    assert evaluator.known == expected
    assert evaluator.asked == 24
    assert 5 <= len(expected) < sum(first)


@pytest.mark.parametrize("intervention", [Clamp(5.0), Clamp(300.0), Zero()], ids=repr)
def test_scores_equal_a_plain_forward_with_hooks(tiny, sae, evaluator, intervention):
    expected = plain_scores(tiny, evaluator.known, sae, FEATURES, intervention)
    got = evaluator.option_scores(sae, FEATURES, intervention)
    close([len(score) for score in got], [len(score) for score in expected])
    close(flat(got), flat(expected))
    unedited = flat(evaluator.option_scores(sae, [], intervention))
    assert max(abs(a - b) for a, b in zip(flat(got), unedited, strict=True)) > 0.01
    assert evaluator.answers(sae, FEATURES, intervention).tolist() == right(evaluator.known, expected)


def flat(scores):
    return [value for score in scores for value in score]


def close(got, expected):
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=0, atol=1e-4)


def test_running_only_changed_prompts_gives_the_scores_of_all(sae, evaluator):
    for features in ([5], FEATURES, list(range(64))):
        some = evaluator.option_scores(sae, features, Clamp(300.0))
        every = evaluator.option_scores(sae, features, Clamp(300.0), only_changed=False)
        close(flat(some), flat(every))


def test_an_edit_leaves_no_trace(sae, evaluator):
    before = evaluator.option_scores(sae, FEATURES, Clamp(5.0))
    assert evaluator.option_scores(sae, FEATURES, Clamp(3000.0)) != before
    assert evaluator.option_scores(sae, FEATURES, Clamp(5.0)) == before
    assert bool(evaluator.answers(sae, [], Zero()).all())


def test_prompts_without_a_firing_feature_are_not_run_again(sae, evaluator, monkeypatch):
    (silent,) = (evaluator.acts(sae, range(64)) > 0).any(dim=0).logical_not().nonzero()[:1, 0].tolist()
    monkeypatch.setattr(evaluator, "above", None)
    assert bool(evaluator.answers(sae, [silent], Clamp(300.0)).all())


def test_batching_changes_nothing(tiny, questions, sae, evaluator):
    other = QuestionEvaluator(tiny, HOOK, questions, PromptSpec(), batch_tokens=40)
    assert other.known == evaluator.known
    got, expected = (e.option_scores(sae, FEATURES, Clamp(300.0)) for e in (other, evaluator))
    close(flat(got), flat(expected))


def test_letter_style_equals_a_plain_forward(tiny, sae, questions):
    spec = PromptSpec(style="letter", template="{stem}\n{options}\n:")
    evaluator = QuestionEvaluator(tiny, HOOK, questions[10:25], spec)
    assert evaluator.known
    expected = []
    for prompt in evaluator.prompts:
        tokens = torch.tensor([prompt.tokens])
        editable = torch.ones_like(tokens, dtype=torch.bool)
        editable[:, 0] = False

        def hook(residual, hook, editable=editable):
            return edit_residual(sae, residual, FEATURES, Clamp(300.0), editable)

        with torch.no_grad():
            logits = tiny.run_with_hooks(tokens, fwd_hooks=[(HOOK, hook)])[0, -1]
        letters = [encode_text(tiny.tokenizer, letter)[0] for letter in "ABC"]
        expected.append(logits.log_softmax(-1)[letters].tolist())
    close(evaluator.option_scores(sae, FEATURES, Clamp(300.0)), expected)


def test_special_tokens_of_a_chat_prompt_are_not_edited(tiny, sae, questions):
    evaluator = QuestionEvaluator(tiny, HOOK, questions[10:14], PromptSpec(chat=True, option_template="{option}"))
    special = set(tiny.tokenizer.all_special_ids)
    expected = sum(token not in special for p in evaluator.prompts for token in p.tokens)
    assert len(evaluator.acts(sae, [0])) == expected == len(evaluator.prompt_of_token)


def test_no_question_is_no_error(tiny, sae):
    evaluator = QuestionEvaluator(tiny, HOOK, [], PromptSpec())
    assert evaluator.known == []
    assert evaluator.answers(sae, FEATURES, Clamp(1.0)).tolist() == []


def test_a_question_beyond_the_context_is_refused(tiny, questions):
    with pytest.raises(UserError, match="exceeds the model's context of 512"):
        QuestionEvaluator(tiny, HOOK, questions[:1], PromptSpec(template="x" * 600 + "{stem}"))
