from dataclasses import replace

import pytest
import torch
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.interventions import Clamp, Zero, edit_residual
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.measures import SaeEdit
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel
from sae_lens_contrastive.unlearning.option_scores import option_scores
from sae_lens_contrastive.unlearning.prompt_set import Edit
from sae_lens_contrastive.unlearning.prompts import PromptSpec
from sae_lens_contrastive.unlearning.runners import PackedRunner, PlainRunner, runner_for
from sae_lens_contrastive.unlearning.tensor_budget import TensorBudget
from sae_lens_contrastive.unlearning.unedited_cache import UneditedCache

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


@pytest.fixture(scope="module", params=["packed", "plain"])
def runner(request, tiny):
    return {"packed": PackedRunner, "plain": PlainRunner}[request.param](tiny, HOOK)


def make(runner, model, questions, spec=None, **options):
    options = {"batch_tokens": 256, "budget": TensorBudget(2**30), "cache": UneditedCache(), **options}
    return QuestionEvaluator(runner, model, questions, spec or PromptSpec(), **options)


@pytest.fixture(scope="module")
def evaluator(runner, tiny, questions):
    return make(runner, tiny, questions)


def scores(evaluator, sae, features, intervention):
    (log_probs,) = evaluator.prompts.edited(sae, [Edit(tuple(features), intervention)])
    by_question = option_scores(evaluator.known, evaluator.prompts.prompts, log_probs, evaluator._pooling)
    return [by_question[i] for i in range(len(evaluator.known))]


def test_the_bridge_takes_packed_prompts_and_other_models_plain_ones(tiny):
    assert isinstance(runner_for(tiny, HOOK), PackedRunner)
    assert isinstance(runner_for(tiny, "blocks.25.hook_resid_post"), PlainRunner)


def test_known_questions_are_right_under_every_phrasing(tiny, questions, evaluator):
    first = right(questions, plain_scores(tiny, questions))
    second = right(questions[:10], plain_scores(tiny, questions[:10], phrasing=1))
    expected = [q for i, q in enumerate(questions) if first[i] and (i >= 10 or second[i])]
    assert evaluator.known == expected
    assert evaluator.asked == 24
    assert 5 <= len(expected) < sum(first)


def test_a_question_answered_wrong_is_not_put_again(runner, tiny, questions, monkeypatch):
    put = []
    original = type(runner).residuals
    monkeypatch.setattr(type(runner), "residuals", lambda self, prompts: put.extend(prompts) or original(self, prompts))
    first = right(questions, plain_scores(tiny, questions))
    make(runner, tiny, questions)
    assert {p.question for p in put if p.phrasing == 1} == {i for i in range(10) if first[i]}


@pytest.mark.parametrize("intervention", [Clamp(5.0), Clamp(300.0), Zero()], ids=repr)
def test_scores_equal_a_plain_forward_with_hooks(tiny, sae, evaluator, intervention):
    expected = plain_scores(tiny, evaluator.known, sae, FEATURES, intervention)
    got = scores(evaluator, sae, FEATURES, intervention)
    close([len(score) for score in got], [len(score) for score in expected])
    close(flat(got), flat(expected))
    unedited = flat(scores(evaluator, sae, [], intervention))
    assert max(abs(a - b) for a, b in zip(flat(got), unedited, strict=True)) > 0.01
    (answers,) = evaluator.answers(sae, [Edit(tuple(FEATURES), intervention)])
    assert answers.tolist() == right(evaluator.known, expected)


def flat(scores):
    return [value for score in scores for value in score]


def close(got, expected):
    torch.testing.assert_close(torch.tensor(got), torch.tensor(expected), rtol=0, atol=1e-4)


def test_edits_at_once_are_the_edits_one_by_one(sae, evaluator):
    edits = [Edit(features, Clamp(c)) for features in ((5,), (5, 17), (2, 40), ()) for c in (5.0, 300.0)]
    together = evaluator.prompts.edited(sae, edits)
    for edit, found in zip(edits, together, strict=True):
        (alone,) = evaluator.prompts.edited(sae, [edit])
        close([v for values in found for v in values.tolist()], [v for values in alone for v in values.tolist()])


def test_an_edit_leaves_no_trace(sae, evaluator):
    before = scores(evaluator, sae, FEATURES, Clamp(5.0))
    assert scores(evaluator, sae, FEATURES, Clamp(3000.0)) != before
    assert scores(evaluator, sae, FEATURES, Clamp(5.0)) == before
    assert bool(evaluator.answers(sae, [Edit((), Zero())])[0].all())


def test_only_prompts_that_an_edit_changes_run_again(sae, evaluator, monkeypatch):
    features = tuple(range(64))
    fires = evaluator.prompts.acts(sae, features) > 0
    reach = {f: set(evaluator.prompts.tokens.prompt[fires[:, f]].tolist()) for f in features}
    rarest = min((f for f in features if reach[f]), key=lambda f: len(reach[f]))
    silent = next(f for f in features if not reach[f])
    run = []
    original = type(evaluator.runner).log_probs

    def recording(self, unedited, batches):
        def seen():
            for batch in batches:
                run.extend(unedited[row.unedited].prompt for row in batch)
                yield batch

        return original(self, unedited, seen())

    monkeypatch.setattr(type(evaluator.runner), "log_probs", recording)
    assert bool(evaluator.answers(sae, [Edit((silent,), Clamp(300.0))])[0].all())
    assert run == []
    evaluator.answers(sae, [Edit((rarest,), Clamp(300.0))])
    changed = {evaluator.prompts.prompts.index(prompt) for prompt in run}
    assert changed == reach[rarest]
    assert 0 < len(changed) < len(evaluator.prompts.prompts)


def test_batching_and_files_change_nothing(runner, tiny, questions, sae, evaluator, tmp_path):
    budget = TensorBudget(0, tmp_path)
    other = make(runner, tiny, questions, batch_tokens=40, budget=budget)
    assert budget.in_files > 0 == budget.in_memory
    assert other.known == evaluator.known
    got, expected = (scores(e, sae, FEATURES, Clamp(300.0)) for e in (other, evaluator))
    close(flat(got), flat(expected))


def test_paraphrases_are_the_other_phrasings_under_the_edit(runner, tiny, sae, questions):
    # The answer is what the model finds likeliest in either phrasing, so that it knows these questions.
    both = [plain_scores(tiny, questions[:10], phrasing=phrasing) for phrasing in (0, 1)]
    best = [[score.index(max(score)) for score in scores] for scores in both]
    known = [replace(q, answer_index=i) for q, i, j in zip(questions, *best, strict=False) if i == j]
    budget = TensorBudget(1000)
    evaluator = make(runner, tiny, known, budget=budget)
    assert evaluator.known == known
    before = vars(budget).copy()
    features = tuple(range(64))
    expected = right(known, plain_scores(tiny, known, sae, features, Clamp(3000.0), phrasing=1))
    assert sum(expected) < len(expected)
    assert evaluator.paraphrase_answers(sae, Edit(features, Clamp(3000.0))).tolist() == expected
    assert vars(budget) == before


LETTERS = PromptSpec(style="letter", template="{stem}\n{options}\n:")


def test_letter_style_equals_a_plain_forward(runner, tiny, sae, questions):
    evaluator = make(runner, tiny, questions[10:25], LETTERS)
    assert evaluator.known
    expected = []
    for prompt in evaluator.prompts.prompts:
        tokens = torch.tensor([prompt.tokens])
        editable = torch.ones_like(tokens, dtype=torch.bool)
        editable[:, 0] = False

        def hook(residual, hook, editable=editable):
            return edit_residual(sae, residual, FEATURES, Clamp(300.0), editable)

        with torch.no_grad():
            logits = tiny.run_with_hooks(tokens, fwd_hooks=[(HOOK, hook)])[0, -1]
        letters = [encode_text(tiny.tokenizer, letter)[0] for letter in "ABC"]
        expected.append(logits.log_softmax(-1)[letters].tolist())
    close(scores(evaluator, sae, FEATURES, Clamp(300.0)), expected)


def test_letter_questions_are_known_under_every_order(runner, tiny, questions):
    once = make(runner, tiny, questions[10:], LETTERS)
    twice = make(runner, tiny, questions[10:], LETTERS.model_copy(update={"n_orders": 6}))
    assert {q.id for q in twice.known} < {q.id for q in once.known}
    assert {p.order for p in twice.prompts.prompts} <= {0}


def test_special_tokens_are_edited_only_if_wanted(runner, tiny, sae, questions):
    spec = PromptSpec(chat=True, option_template="{option}")
    special = set(tiny.tokenizer.all_special_ids)
    for wanted in (False, True):
        evaluator = make(runner, tiny, questions[10:14], spec, edit_special_tokens=wanted)
        tokens = [token for p in evaluator.prompts.prompts for token in p.tokens[1:] if wanted or token not in special]
        assert len(evaluator.prompts.acts(sae, [0])) == len(tokens) == len(evaluator.prompts.tokens.prompt)


@pytest.mark.parametrize("special_tokens", [False, True], ids=["spared", "edited"])
def test_a_gate_counts_the_tokens_that_it_counts_where_the_whole_model_runs(
    runner, tiny, sae, questions, special_tokens
):
    spec = PromptSpec(chat=True, option_template="{option}")
    prompts = make(runner, tiny, questions[10:14], spec, edit_special_tokens=special_tokens).prompts
    whole = EditedModel(tiny, HOOK, SaeEdit(sae, tuple(FEATURES), Clamp(1.0), special_tokens))
    batch = whole.batch([each.tokens for each in prompts.prompts], [each.n_asked for each in prompts.prompts])
    n_counted = torch.zeros(len(prompts.prompts), dtype=torch.long)
    n_counted.index_add_(0, prompts.tokens.prompt, prompts.tokens.counts.long())
    assert n_counted.tolist() == batch.counted.sum(dim=1).tolist()
    assert bool((n_counted < batch.editable.sum(dim=1)).all()) == special_tokens


def test_no_question_is_no_error(runner, tiny, sae):
    evaluator = make(runner, tiny, [])
    assert evaluator.known == []
    assert [right.tolist() for right in evaluator.answers(sae, [Edit(tuple(FEATURES), Clamp(1.0))])] == [[]]


def test_a_question_beyond_the_context_is_refused(runner, tiny, questions):
    with pytest.raises(UserError, match="exceeds the model's context of 512"):
        make(runner, tiny, questions[:1], PromptSpec(template="x" * 600 + "{stem}"))
