"""SAEBench's own code beside ours on the tiny Gemma-2; skipped where sae-bench is not installed."""

import importlib.util
import random
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.corpus import packed_contexts
from sae_lens_contrastive.unlearning.prompts import PromptWriter
from sae_lens_contrastive.unlearning.tensor_budget import TensorBudget
from sae_lens_contrastive.unlearning.unedited_cache import UneditedCache

pytestmark = pytest.mark.skipif(importlib.util.find_spec("sae_bench") is None, reason="sae-bench is not installed")

EVALS = Path(__file__).parents[2] / "evals"
WORDS = ("iron", "salt", "rain", "wood", "gold", "sand", "milk", "wool", "clay", "silk", "zinc", "corn")


@pytest.fixture(scope="module")
def scripts():
    """The script and its helper modules, which lie beside it and not in a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EVALS))
        import saebench_parity
        import saebench_peer
        import saebench_peer_cases

        yield saebench_parity, saebench_peer, saebench_peer_cases
    for name in [name for name in sys.modules if name.startswith("saebench_")]:
        del sys.modules[name]


@pytest.fixture
def make_task(scripts):
    """Questions about made-up things, with texts of the same words."""
    _, _, cases = scripts
    subject = replace(cases.SUBJECTS["tiny-random-gemma-2"], context_size=64, corpus_tokens=2_000)

    def make(prompt, n=12):
        rng = random.Random(prompt)
        questions = {
            name: [question(f"{name}_{i}", domain, rng) for i in range(n)]
            for name, domain in ((cases.FORGET, "college_biology"), ("human_aging", "human_aging"))
        }
        texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(6)]
        return cases.Task(subject, prompt, questions, forget_texts=texts[:3], retain_texts=texts[3:])

    return make


def question(name, domain, rng):
    options = tuple(rng.sample(WORDS, 4))
    return Question(
        id=name,
        domain=domain,
        relation="question",
        entity=name,
        stems=(f"The {rng.choice(WORDS)} of the {rng.choice(WORDS)} is",),
        options=options,
        answer_index=rng.randrange(4),
        split="select",
    )


@pytest.fixture
def grid(scripts):
    return scripts[2].Grid(retain_thresholds=(0.2, 0.9), n_features=(6,), multipliers=(2, 200))


@pytest.mark.parametrize(
    ("prompt", "architecture"),
    [("cloze", "standard"), ("cloze", "topk"), ("letter", "topk"), ("letter", "jumprelu")],
)
def test_every_answer_and_the_score_are_those_of_saebench(
    tiny, scripts, make_task, grid, tmp_path, prompt, architecture
):
    parity, peer, cases = scripts
    task = make_task(prompt)
    known = peer.known_questions(tiny, task, tmp_path / "known", 4)
    task = task.only(known, 4)
    assert all(len(questions) >= 2 for questions in task.questions.values())
    saes = [
        cases.made_sae(architecture, tiny, task.subject.hook_name, task.retain_texts, 64, share=0.1) for _ in range(2)
    ]
    mine = parity.ours(tiny, saes[0], task, grid, batch_tokens=512)
    theirs = peer.run_saebench(tiny, saes[1], task, grid, tmp_path / "run", 4)
    assert mine.features == theirs.features
    assert all(len(features) > 2 for features in theirs.features.values())
    assert mine.answers == theirs.answers
    assert mine.score == theirs.score
    # The comparison is about something: edits turn answers wrong, and not all of them.
    answers = [right for by_set in theirs.answers.values() for rights in by_set.values() for right in rights]
    assert 0 < sum(answers) < len(answers)
    assert tiny.cfg.model_name == task.subject.name


@pytest.mark.parametrize("chat", [True, False])
def test_prompts_are_saebenchs_token_by_token_in_all_orders(tiny, scripts, make_task, chat):
    _, peer, _ = scripts
    task = make_task("letter", n=2)
    task = replace(task, subject=replace(task.subject, chat=chat))
    spec = task.prompt_spec.model_copy(update={"n_orders": 24})
    for name, subject_line in (("wmdp-bio", "biology"), ("human_aging", "human aging")):
        questions = task.questions[name]
        prompts = PromptWriter(tiny.tokenizer, spec).prompts(questions)
        with peer.patched(tiny, task) as bench:
            theirs = [
                bench.metrics.convert_wmdp_data_to_prompt(
                    q.stems[0],
                    list(q.options),
                    prompt_format="GEMMA_INST_FORMAT",
                    pre_question=bench.metrics.PRE_QUESTION_FORMAT.format(subject=subject_line),
                    permute_choices=order,
                )
                for q in questions
                for order in permutations(range(4))
            ]
            tokens = [tiny.to_tokens(text, prepend_bos=False)[0].tolist() for text in theirs]
        assert [list(prompt.tokens) for prompt in prompts] == tokens


def test_questions_known_in_all_orders_are_those_that_saebench_saves(tiny, scripts, make_task, tmp_path):
    _, peer, _ = scripts
    task = make_task("letter", n=4)
    # The first two are known; the model is sure of a wrong option of the third and says A to the fourth.
    listed = [("sure", "a", "b", "c"), ("a", "b", "c", "sure"), ("a", "sure", "b", "c"), ("a", "b", "c", "d")]
    answers = (0, 3, 2, 0)
    questions = [
        replace(q, options=options, answer_index=answer)
        for q, options, answer in zip(task.questions["wmdp-bio"], listed, answers, strict=True)
    ]
    task = replace(task, questions={"wmdp-bio": questions})
    reader = SureReader(tiny)
    with peer.patched(reader, task) as bench:
        bench.metrics.save_target_question_ids(reader, 7, str(tmp_path), "wmdp-bio")
    saved = (tmp_path / "data/question_ids/all/wmdp-bio_correct.csv").read_text().split()
    assert saved == ["0", "1"]
    spec = task.prompt_spec.model_copy(update={"n_orders": 24})
    evaluator = QuestionEvaluator(reader, tiny, questions, spec, budget=TensorBudget(1e9), cache=UneditedCache())
    assert evaluator.known == questions[:2]


class SureReader:
    """In the place of a model, or of what runs its prompts: says the letter of the option `sure`, or else A."""

    packed = True

    def __init__(self, model):
        self.tokenizer, self.cfg, self.to_tokens = model.tokenizer, model.cfg, model.to_tokens

    def said(self, tokens):
        text = self.tokenizer.decode(tokens)
        letter = text[text.index(". sure") - 1] if ". sure" in text else "A"
        return self.tokenizer(letter, add_special_tokens=False)["input_ids"][0]

    def __call__(self, tokens, return_type):
        logits = torch.zeros(*tokens.shape, self.cfg.d_vocab)
        for row, sequence in enumerate(tokens):
            logits[row, :, self.said(sequence)] = 9.0
        return logits

    def residuals(self, prompts):
        return [torch.zeros(len(prompt.tokens), 1) for prompt in prompts]

    def log_probs(self, unedited, batches):
        for rows in batches:
            prompts = [unedited[row.unedited].prompt for row in rows]
            yield [torch.tensor([float(spot.token == self.said(p.tokens)) for spot in p.spots]) for p in prompts]


def test_contexts_are_saebenchs(tiny, scripts, make_task):
    _, peer, _ = scripts
    task = make_task("cloze")
    random.seed(task.seed)
    with peer.patched(tiny, task) as bench:
        sides = bench.feature_activation.get_shuffled_forget_retain_tokens(tiny, batch_size=1_000, seq_len=16)
    for tokens, texts in zip(sides, (task.forget_texts_as_read, task.retain_texts), strict=True):
        ours = packed_contexts(tiny.tokenizer, texts, 16, 100_000)
        assert sorted(ours.tokens) == sorted(tokens.tolist())


@pytest.mark.parametrize(("known", "side"), [("human_aging", "forget"), ("wmdp-bio", "retain")])
def test_a_side_of_which_nothing_is_known_is_said(tiny, scripts, make_task, monkeypatch, known, side):
    parity, _, cases = scripts
    task = make_task("cloze")
    monkeypatch.setattr(parity, "make_task", lambda *_args, **_kwargs: task)
    monkeypatch.setattr(
        parity, "known_questions", lambda *_args: {name: [0] * (name == known) for name in task.questions}
    )
    options = SimpleNamespace(mmlu=None, max_asked=1, batch_size=1, max_known=1)
    with pytest.raises(UserError, match=f"tiny-random-gemma-2 knows none of the {side} questions of --prompts cloze"):
        parity._known_task(tiny, cases.SUBJECTS["tiny-random-gemma-2"], "cloze", options)


def test_a_cloze_is_read_by_whole_sequences(tiny, scripts):
    _, peer, _ = scripts
    prompt = peer.cloze_prompt("The salt is", ["sand", "milk", "a", "corn"], permute_choices=(2, 0, 1, 3))
    assert prompt.options == ("a", "sand", "milk", "corn")
    with torch.no_grad():
        scores = peer.cloze_scores(tiny, [prompt, prompt], batch_size=1, n_batches=2)
        ids = [tiny.tokenizer.bos_token_id, *tiny.tokenizer("The salt is a", add_special_tokens=False)["input_ids"]]
        log_probs = tiny(torch.tensor([ids]))[0].log_softmax(dim=-1)
    # " a" is two tokens, read after "...is" and after the space.
    expected = log_probs[-3, ids[-2]] + log_probs[-2, ids[-1]]
    torch.testing.assert_close(scores[0, 0], expected)
    torch.testing.assert_close(scores[0], scores[1])
