import pytest
import torch

from sae_lens_contrastive.errors import ConfigError, UserError
from sae_lens_contrastive.models.embedded import byte_tokenizer
from sae_lens_contrastive.unlearning.corpus import (
    Contexts,
    CorpusActivations,
    corpus_gradients,
    corpus_residuals,
    document_contexts,
    packed_contexts,
)

HOOK = "blocks.19.hook_resid_post"
TEXTS = ["abcdefghij", "kl<end_of_turn>m", "The rest is longer than a sliding window of sixteen."]


@pytest.fixture
def tokenizer(tiny):
    return tiny.tokenizer


def text_of(tokenizer, tokens):
    return tokenizer.decode(tokens)


def test_each_document_begins_a_context_and_the_budget_is_met_exactly(tokenizer):
    contexts = document_contexts(tokenizer, TEXTS, context_size=5, max_tokens=12)
    assert [text_of(tokenizer, tokens) for tokens in contexts.tokens] == [
        "<bos>abcd",
        "<bos>efgh",
        "<bos>ij",
        "<bos>kl<end_of_turn>",
    ]
    assert contexts.counted[0] == [False, True, True, True, True]
    assert contexts.counted[3] == [False, True, True, False]
    assert contexts.n_tokens == 12
    assert document_contexts(tokenizer, TEXTS, context_size=5, max_tokens=7).tokens[-1] == contexts.tokens[1][:4]


def test_all_of_a_corpus_shorter_than_the_budget_is_read(tokenizer):
    contexts = document_contexts(tokenizer, ["abc", "", "<eos>", "de"], context_size=5, max_tokens=99)
    assert [text_of(tokenizer, tokens) for tokens in contexts.tokens] == ["<bos>abc", "<bos>de"]
    assert contexts.n_tokens == 5


def test_the_beginning_of_contexts_is_cut_inside_one():
    contexts = Contexts([[1, 2, 3], [1, 4, 5]], [[False, True, True], [False, False, True]])
    assert contexts.first(2) == Contexts([[1, 2, 3]], [[False, True, True]])
    assert contexts.first(1) == Contexts([[1, 2]], [[False, True]])
    assert contexts.first(9) == contexts


def test_packed_texts_are_joined_by_eos_and_cut():
    tokenizer = byte_tokenizer()
    # 126 characters with "<eos>" twice: no chunk of 7 ends within one.
    texts = ["a" * 42, "b" * 44, "c" * 30]
    contexts = packed_contexts(tokenizer, texts, context_size=20, max_tokens=119)
    assert [text_of(tokenizer, tokens) for tokens in contexts.tokens] == [
        "<bos>" + "a" * 19,
        "<bos>" + "a" * 19,
        "<bos>a<eos>" + "b" * 17,
        "<bos>" + "b" * 19,
        "<bos>" + "b" * 6 + "<eos>" + "c" * 12,
    ]
    assert contexts.counted[2] == [False, True, False] + [True] * 17
    # 118 tokens hold five complete contexts, of which a smaller budget takes the first.
    assert packed_contexts(tokenizer, texts, context_size=20, max_tokens=1000) == contexts
    assert packed_contexts(tokenizer, texts, context_size=20, max_tokens=59).tokens == contexts.tokens[:2]


class ReferenceTokenizer:
    """Four characters a token, so that where a text is cut into chunks shows; begins every text with BOS."""

    eos_token, eos_token_id, bos_token_id, pad_token_id = "|", 1, 2, 3

    def __call__(self, text, **_kwargs):
        return {"input_ids": [2, *[10 + ord(text[i]) for i in range(0, len(text), 4)]]}


def test_packed_texts_are_tokenized_in_saebenchs_chunks():
    text = "".join(chr(33 + i % 90) for i in range(130))
    tokenizer = ReferenceTokenizer()
    # SAEBench's tokenize_and_concat_dataset: 20 chunks of (130 - 1) // 20 + 1 = 7 characters, the last ones empty.
    chunks = [text[i * 7 : (i + 1) * 7] for i in range(20)]
    flat = [token for chunk in chunks for token in tokenizer(chunk)["input_ids"]]
    expected = [[2, *flat[start + 1 : start + 8]] for start in range(0, len(flat) - 7, 8)]
    contexts = packed_contexts(tokenizer, [text], context_size=8, max_tokens=1000)
    assert contexts.tokens == expected
    assert contexts.counted[0] == [token != 2 for token in expected[0]]


def test_packed_contexts_say_what_is_missing(tokenizer):
    with pytest.raises(ConfigError, match="5 tokens are less than one context of 8"):
        packed_contexts(tokenizer, TEXTS, context_size=8, max_tokens=5)
    with pytest.raises(UserError, match="fill no context of 8 tokens"):
        packed_contexts(byte_tokenizer(), ["abc"], context_size=8, max_tokens=80)


@pytest.fixture
def contexts(tokenizer):
    return document_contexts(tokenizer, TEXTS, context_size=24, max_tokens=50)


def test_activations_come_context_by_context_whatever_the_batches(tiny, contexts):
    read = CorpusActivations(contexts, corpus_residuals(tiny, HOOK, contexts, batch_tokens=50, title="text"))
    expected, context_of_token = [], []
    for index, (tokens, counted) in enumerate(zip(contexts.tokens, contexts.counted, strict=True)):
        _, cache = tiny.run_with_cache(torch.tensor([tokens]), names_filter=[HOOK])
        expected.append(cache[HOOK][0, torch.tensor(counted)])
        context_of_token += [index] * sum(counted)
    torch.testing.assert_close(read.residuals, torch.cat(expected), rtol=0, atol=1e-5)
    assert read.context_of_token.tolist() == context_of_token
    assert len(set(context_of_token)) == 4


def test_gradients_are_those_of_the_loss_of_the_context(tiny, contexts):
    got = corpus_gradients(tiny, HOOK, contexts, batch_tokens=50, title="text")
    read = CorpusActivations(contexts, corpus_residuals(tiny, HOOK, contexts, batch_tokens=50, title="text"))
    for index, (tokens, counted) in enumerate(zip(contexts.tokens, contexts.counted, strict=True)):
        own = got[read.context_of_token == index]
        place = next(i for i, counts in enumerate(counted) if counts)
        step = torch.zeros(len(tokens), 32)
        step[place] = 0.5 * own[0] / own[0].norm()

        losses = [context_loss(tiny, tokens, counted, sign * step) for sign in (1, -1)]
        slope = (losses[0] - losses[1]).item()
        assert slope == pytest.approx(own[0].norm().item(), rel=0.05, abs=1e-4)
        if counted[-1]:
            # Nothing is predicted from the last token.
            assert own[-1].abs().max() == 0
    assert got.shape == read.residuals.shape
    assert got.norm() > 0


def context_loss(model, tokens, counted, change):
    with torch.no_grad():
        logits = model.run_with_hooks(
            torch.tensor([tokens]), fwd_hooks=[(HOOK, lambda residual, hook: residual + change)]
        )[0]
    log_probs = logits[:-1].log_softmax(-1)
    return -sum(log_probs[i - 1, token] for i, token in enumerate(tokens) if counted[i])


def test_a_corpus_without_text_and_a_context_beyond_the_models_are_refused(tiny):
    with pytest.raises(UserError, match="The forget corpus holds no token but special ones"):
        corpus_residuals(tiny, HOOK, Contexts([], []), batch_tokens=50, title="forget corpus")
    long = Contexts([[7] * 600], [[False] + [True] * 599])
    with pytest.raises(ConfigError, match="of 600 tokens exceeds the model's context of 512"):
        corpus_gradients(tiny, HOOK, long, batch_tokens=50, title="forget corpus")
