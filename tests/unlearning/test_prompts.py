from itertools import permutations
from pathlib import Path

import pytest
from tokenizers.models import BPE

from sae_lens_contrastive.config import load_yaml, parse_config
from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.models.embedded import byte_tokenizer
from sae_lens_contrastive.unlearning.prompts import Prompt, PromptSpec, PromptWriter


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def ids(tokenizer, text):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def question(answer, *distractors, stems=("The key is",)):
    return Question.with_distractors(
        id="k/1",
        domain="k",
        relation="key",
        entity="K",
        stems=stems,
        answer=answer,
        distractors=distractors,
        split="select",
    )


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
        ({"style": "letter", "letter_forms": ["{letter}", "A"]}, "letter form 'A' lacks {letter}"),
        ({"style": "letter", "n_orders": 0}, "n_orders: .*greater than 0"),
        ({"n_orders": 24}, "n_orders need style: letter"),
        ({"letter_forms": ["{letter}"]}, "letter_forms and n_orders need style: letter"),
        ({"subjects": {"a": "b"}}, "has no {subject}"),
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


def test_an_option_without_a_token_is_refused(tokenizer):
    with pytest.raises(UserError, match="'' has no token to score"):
        PromptWriter(tokenizer, PromptSpec(option_template="{option}")).prompts([question("a", "")])


def test_a_packed_prompt_is_a_trunk_with_a_branch_for_every_distinct_ending(tokenizer):
    asked = question("ab", "abc", "x", "yz", stems=("Q",))
    spec = PromptSpec(option_template="{option}")
    (packed,) = PromptWriter(tokenizer, spec, packed=True).prompts([asked])
    # Endings are read without their last byte: "ab" of "abc", which begins with the "a" of "ab"; "y" of "yz"; nothing
    # of "x".
    assert packed.tokens == (tokenizer.bos_token_id, *ids(tokenizer, "Q"), *ids(tokenizer, "ab"), *ids(tokenizer, "y"))
    assert packed.branch == (0, 0, 1, 1, 2)
    assert packed.positions == [0, 1, 2, 3, 2]
    assert packed.n_trunk == packed.n_asked == 2
    read = {
        option: [(spot.position, tokenizer.decode(spot.token)) for spot in packed.spots if spot.option == index]
        for index, option in enumerate(asked.options)
    }
    assert read == {
        "ab": [(1, "a"), (2, "b")],
        "abc": [(1, "a"), (2, "b"), (3, "c")],
        "x": [(1, "x")],
        "yz": [(1, "y"), (4, "z")],
    }


def test_packing_scores_the_same_tokens_after_the_same_context(tokenizer):
    asked = question("red", "green", "redder", "blue", stems=("The key is", "A key may be"))

    def scored(packed):
        found = set()
        for prompt in PromptWriter(tokenizer, PromptSpec(), packed).prompts([asked]):
            for at, token, option in prompt.spots:
                seen = [i for i in range(at + 1) if prompt.branch[i] in (0, prompt.branch[at])]
                assert [prompt.positions[i] for i in seen] == list(range(len(seen)))
                found.add((prompt.phrasing, option, tuple(prompt.tokens[i] for i in seen), token))
        return found

    assert scored(packed=True) == scored(packed=False)
    assert len(scored(packed=True)) == 2 * sum(len(f" {option}") for option in asked.options)


def test_unpacked_prompts_are_plain_sequences_that_know_what_was_asked(tokenizer):
    prompts = PromptWriter(tokenizer, PromptSpec()).prompts([question("red", "green")])
    for prompt in prompts:
        assert set(prompt.branch) == {0}
        assert prompt.positions == list(range(len(prompt.tokens)))
        assert prompt.n_asked == len("The key is") + 1 < prompt.n_trunk == len(prompt.tokens)
    assert Prompt(0, 0, (7, 8)).branch == (0, 0)


GEMMA_CHAT_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
SAEBENCH = load_yaml(Path(__file__).parents[2] / "evals" / "wmdp_bio_gemma_2_2b_it.yaml")["prompt"]


def saebench(**changes):
    return PromptSpec.model_validate({**SAEBENCH, **changes})


@pytest.fixture
def gemma():
    """Bytes with Gemma's chat template, and one token for a space and a letter, as Gemma has."""
    plain = byte_tokenizer()
    vocabulary = plain.get_vocab()
    merges = [("\u0120", letter) for letter in "ABCD"]
    vocabulary |= {"".join(merge): len(vocabulary) + i for i, merge in enumerate(merges)}
    plain.backend_tokenizer.model = BPE(vocab=vocabulary, merges=merges)
    plain.chat_template = GEMMA_CHAT_TEMPLATE
    return plain


def published(domain, stem, options, answer_index):
    """A question whose options are listed in the published order."""
    return Question(f"{domain}/0", domain, "question", f"{domain}/0", (stem,), options, answer_index, "select")


@pytest.mark.parametrize(
    ("domain", "subject"),
    [("wmdp-bio", "biology"), ("high_school_us_history", "high school us history")],
)
def test_the_prompt_of_saebench_is_written_to_the_token(gemma, domain, subject):
    # The last option ends in a space, which Gemma's chat template would trim.
    asked = published(domain, "Which {stem}?", ("one", "{options}", "three", "four "), 2)
    (prompt,) = PromptWriter(gemma, saebench(n_orders=1), packed=True).prompts([asked])
    text = (
        "<bos><start_of_turn>user\n"
        f"The following are multiple choice questions (with answers) about {subject}.\n"
        "Which {stem}?\nA. one\nB. {options}\nC. three\nD. four <end_of_turn>\n<start_of_turn>model\nAnswer: ("
    )
    assert prompt.tokens == ids(gemma, text)
    assert prompt.tokens.count(gemma.bos_token_id) == 1
    assert prompt.n_asked == prompt.n_trunk == len(prompt.tokens)
    letters = [(gemma.decode(spot.token), spot.option) for spot in prompt.spots]
    assert letters == [(f"{space}{letter}", i) for space in ("", " ") for i, letter in enumerate("ABCD")]


def test_orders_of_options_are_permutations_and_a_letter_counts_for_what_it_lists(gemma):
    spec = saebench(letter_forms=["{letter}"])
    options = ("one", "two", "three", "four")
    prompts = PromptWriter(gemma, spec).prompts([published("d", "s", options, 2)])
    assert [prompt.order for prompt in prompts] == list(range(24))
    for prompt, order in zip(prompts, permutations(range(4)), strict=True):
        listed = "\n".join(f"{letter}. {options[i]}" for letter, i in zip("ABCD", order, strict=True))
        assert f"\ns\n{listed}<end_of_turn>" in gemma.decode(prompt.tokens)
        assert [(gemma.decode(spot.token), spot.option) for spot in prompt.spots] == list(
            zip("ABCD", order, strict=True)
        )


def test_few_options_have_few_orders(gemma):
    spec = saebench()
    assert len(PromptWriter(gemma, spec).prompts([published("d", "s", ("one", "one"), 0)])) == 2


def test_a_letter_form_of_several_tokens_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"prompt\.letter_forms: ' {letter}' with the letters AB does not give single"):
        PromptWriter(tokenizer, saebench(n_orders=1)).prompts([published("d", "s", ("a", "b"), 0)])


def test_the_answer_start_follows_the_prompt_in_both_styles(tokenizer):
    spec = PromptSpec(template="Q: {stem}", answer_start="\nA:")
    (prompt,) = PromptWriter(tokenizer, spec, packed=True).prompts([question("a", "b")])
    assert tokenizer.decode(prompt.tokens[: prompt.n_asked]) == "<bos>Q: The key is\nA:"


def test_pooling_is_the_sum_of_tokens_or_the_likeliest_letter():
    assert PromptSpec().pooling == "sum"
    assert PromptSpec(style="letter").pooling == "max"
