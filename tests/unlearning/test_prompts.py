import pytest

from sae_lens_contrastive.config import parse_config
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models.embedded import byte_tokenizer
from sae_lens_contrastive.unlearning.prompts import PromptSpec, PromptWriter


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def ids(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def question(answer, *distractors, stems=("The key is",)):
    return Question("k/1", "k", "key", "K", stems, answer, distractors, "select")


def scored_texts(tokenizer, prompts, n_options):
    """What is scored for each option: the text before its first spot and its tokens."""
    texts = []
    for option in range(n_options):
        (prompt,) = [p for p in prompts if any(spot.option == option for spot in p.spots)]
        spots = [spot for spot in prompt.spots if spot.option == option]
        assert [spot.position for spot in spots] == list(range(spots[0].position, spots[0].position + len(spots)))
        # All but the last scored token are read as well.
        assert [spot.token for spot in spots[:-1]] == list(prompt.tokens[spots[0].position + 1 :][: len(spots) - 1])
        before = tokenizer.decode(prompt.tokens[: spots[0].position + 1])
        texts.append((before, tokenizer.decode([spot.token for spot in spots])))
    return texts


def test_likelihood_scores_exactly_the_option_tokens(tokenizer):
    asked = question("red", "green", "redder", "blue")
    prompts = PromptWriter(tokenizer, PromptSpec()).prompts([asked])
    expected = [("<bos>The key is", f" {option}") for option in asked.options]
    assert scored_texts(tokenizer, prompts, 4) == expected
    # "red" without its last byte begins "redder" without its last byte.
    assert len(prompts) == 3


def test_options_of_one_token_share_one_sequence(tokenizer):
    spec = PromptSpec(option_template="{option}")
    (prompt,) = PromptWriter(tokenizer, spec).prompts([question("a", "b", "c")])
    assert prompt.tokens == (tokenizer.bos_token_id, *ids(tokenizer, "The key is"))
    assert {spot.position for spot in prompt.spots} == {len(prompt.tokens) - 1}


def test_every_phrasing_has_prompts(tokenizer):
    asked = question("a", "b", stems=("one", "two", "three"))
    prompts = PromptWriter(tokenizer, PromptSpec()).prompts([asked, asked])
    assert {(p.question, p.phrasing) for p in prompts} == {(q, s) for q in (0, 1) for s in (0, 1, 2)}


def test_letters_are_compared_after_the_prompt(tokenizer):
    asked = question("red", "green", "blue")
    (prompt,) = PromptWriter(tokenizer, PromptSpec(style="letter")).prompts([asked])
    text = tokenizer.decode(prompt.tokens)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABC", asked.options, strict=True))
    assert text.startswith("<bos>Which")
    assert f"The key is ...\n\n{listed}\n\nAnswer:" in text
    # A space and a letter are two bytes, so this tokenizer compares the bare letters.
    assert [(spot.token,) for spot in prompt.spots] == [ids(tokenizer, letter) for letter in "ABC"]
    assert {spot.position for spot in prompt.spots} == {len(prompt.tokens) - 1}


def test_chat_template_wraps_and_writes_bos_once(tokenizer):
    (prompt,) = PromptWriter(tokenizer, PromptSpec(chat=True, option_template="{option}")).prompts([question("a", "b")])
    text = tokenizer.decode(prompt.tokens)
    assert text == "<bos><start_of_turn>user\nThe key is<end_of_turn>\n<start_of_turn>model\n"


def test_chat_without_a_template_is_refused(tokenizer):
    plain = byte_tokenizer()
    plain.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        PromptWriter(plain, PromptSpec(chat=True))


def test_braces_in_a_question_are_text(tokenizer):
    asked = question("a", "b", stems=("{x} {option} is",))
    prompts = PromptWriter(tokenizer, PromptSpec(template="Q: {stem}")).prompts([asked])
    assert tokenizer.decode(prompts[0].tokens).startswith("<bos>Q: {x} {option} is")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"style": "letters"}, "'likelihood' or 'letter'"),
        ({"template": "no stem"}, "lacks {stem}"),
        ({"style": "letter", "template": "{stem}"}, "lacks {options}"),
        ({"option_template": "x"}, "lacks {option}"),
    ],
)
def test_a_wrong_prompt_spec_names_the_problem(values, message):
    with pytest.raises(UserError, match=message):
        parse_config(PromptSpec, values, "spec.yaml")


def test_letters_that_are_no_single_tokens_are_refused(tokenizer):
    class Doubling:
        """Writes every text twice, so that nothing continues a prompt by one token."""

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **options):
            return tokenizer(text[::-1], **options)

    with pytest.raises(UserError, match="not single tokens"):
        PromptWriter(Doubling(), PromptSpec(style="letter")).prompts([question("a", "b")])
