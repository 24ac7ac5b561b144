from dataclasses import replace

import pytest
from made_edits import HOOK, plain_logits, random_edit

from sae_lens_contrastive.data.batching import encode_text
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.unlearning.measures import RecallOptions, RecallResult, recall, recall_result, recalled
from sae_lens_contrastive.unlearning.measures.edited_model import EditedModel
from sae_lens_contrastive.unlearning.prompts import PromptSpec

STEMS = ["The sun is", "A river that is long and slow runs", "Q", "It was"]


def plain_continuation(model, tokens, n, edit=None):
    said = []
    for _ in range(n):
        token = plain_logits(model, [*tokens, *said], edit)[-1].argmax().item()
        if token in model.tokenizer.all_special_ids:
            break
        said.append(token)
    return said


@pytest.mark.parametrize("edit", [None, random_edit(40.0)], ids=["none", "edit"])
def test_continuations_are_greedy_whatever_the_batch(tiny, edit):
    asked = [[tiny.tokenizer.bos_token_id, *encode_text(tiny.tokenizer, stem)] for stem in STEMS]
    got = recall.continuations(EditedModel(tiny, HOOK, edit), asked, 5, 60, "questions")
    expected = [tiny.tokenizer.decode(plain_continuation(tiny, tokens, 5, edit)) for tokens in asked]
    assert got == expected
    assert len(set(got)) > 1


@pytest.mark.parametrize(
    ("text", "is_recalled"), [(" Paris", True), (" the Paris of old", True), (" Parisian by birth", False), ("", False)]
)
def test_an_answer_is_recalled_as_a_whole_word(tiny, monkeypatch, text, is_recalled):
    def says(model, sequences, max_new_tokens):
        assert max_new_tokens == 18
        return [encode_text(model.tokenizer, text)] * len(sequences)

    monkeypatch.setattr(recall, "greedy_continuations", says)
    question = Question("q", "q", "r", "France", ("The capital of France is",), ("Rome", "Paris"), 1, "select")
    options = RecallOptions(max_new_tokens=18)
    assert recalled(tiny, HOOK, [question, question], PromptSpec(), options) == [is_recalled] * 2


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("It is São  Paulo, of course", "sao paulo", True),
        ("the U.S. dollar", "U.S. dollar", True),
        ("Oslo", "Os", False),
        ("in the south", "New", False),
    ],
)
def test_case_accents_and_punctuation_do_not_matter(text, answer, expected):
    assert recall.holds(text, answer) is expected


QUESTION = Question("q", "new_towns", "r", "x", ("It is", "Other phrasing"), ("a", "b", "c"), 0, "select")


@pytest.mark.parametrize(
    ("prompt", "options", "expected"),
    [
        (PromptSpec(), RecallOptions(), "<bos>It is"),
        (PromptSpec(style="letter"), RecallOptions(), "<bos>It is"),
        (PromptSpec(), RecallOptions(template="Of {subject}: {stem}"), "<bos>Of new towns: It is"),
        (
            PromptSpec(chat=True, style="letter"),
            RecallOptions(),
            "<bos><start_of_turn>user\nComplete the sentence with the missing words only.\n\nIt is ..."
            "<end_of_turn>\n<start_of_turn>model\n",
        ),
    ],
)
def test_what_is_asked_shows_no_option(tiny, monkeypatch, prompt, options, expected):
    seen = []
    monkeypatch.setattr(recall, "greedy_continuations", lambda model, sequences, n: seen.extend(sequences) or [[], []])
    recalled(tiny, HOOK, [QUESTION, QUESTION], prompt, options)
    assert [tiny.tokenizer.decode(tokens) for tokens in seen] == [expected] * 2


def test_recall_before_and_after():
    assert recall_result([True, True, False, True], [True, False, True, False]) == RecallResult(
        n_questions=4, before=0.75, after=0.5, kept=1 / 3
    )
    assert recall_result([False], [True]).kept is None


def test_what_cannot_be_asked_is_refused(tiny):
    with pytest.raises(ValueError, match=r"lacks \{stem\}"):
        RecallOptions(template="no place")
    long = replace(QUESTION, stems=("x" * 508,))
    with pytest.raises(ConfigError, match="of 517 tokens exceeds the model's context of 512"):
        recalled(tiny, HOOK, [long], PromptSpec(), RecallOptions(max_new_tokens=8))
