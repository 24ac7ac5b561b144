"""Examples of an evaluated SAE, from the residual streams and the prompts that the evaluation has anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sae_lens_contrastive.interventions import feature_acts
from sae_lens_contrastive.saved_examples import (
    MAX_FEATURES,
    MAX_OPTIONS,
    MAX_QUESTIONS,
    MAX_SNIPPETS,
    MAX_TEXT_CHARACTERS,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENS,
    EvaluationExamples,
    FeatureExamples,
    QuestionExample,
    Snippet,
)
from sae_lens_contrastive.unlearning.answers import QuestionEvaluator
from sae_lens_contrastive.unlearning.corpus import CorpusActivations
from sae_lens_contrastive.unlearning.prompt_set import Edit
from sae_lens_contrastive.unlearning.shared import HookData

# A feature speaks of what it has read.
_TOKENS_AFTER = MAX_TOKENS // 4


def evaluation_examples(sae: Any, edit: Edit | None, data: HookData, *, variant: str, seed: int) -> EvaluationExamples:
    """Features of the chosen edit with the text on which they fire most, and questions before it and after it."""
    evidence = data.evidence(sae, gradients=False)
    forget, retain = evidence.forget.rate, evidence.retain.rate
    if edit is not None and edit.features:
        features_from, features = "edit", list(edit.features[:MAX_FEATURES])
    else:
        features_from, features = (
            "rates",
            (forget - retain).argsort(descending=True, stable=True)[:MAX_FEATURES].tolist(),
        )
        features = [feature for feature in features if forget[feature] > retain[feature]]
    of_forget = snippets(sae, features, data.forget_text, data.model.tokenizer, "forget")
    of_retain = snippets(sae, features, data.retain_text, data.model.tokenizer, "retain")
    return EvaluationExamples(
        variant=_shortened(variant, 200),
        seed=seed,
        forget_domain=_shortened(data.spec.forget_domain, 200),
        features_from=features_from,
        features=[
            FeatureExamples(
                feature=feature,
                forget_rate=float(forget[feature]),
                retain_rate=float(retain[feature]),
                snippets=[*of_forget[i], *of_retain[i]],
            )
            for i, feature in enumerate(features)
        ],
        questions=[] if edit is None else _questions(sae, edit, data),
    )


def snippets(
    sae: Any, features: Sequence[int], corpus: CorpusActivations, tokenizer: Any, name: Literal["forget", "retain"]
) -> list[list[Snippet]]:
    """For each feature, the text around the token of each context on which it fires most, the strongest first."""
    if not features:
        return []
    with torch.no_grad():
        acts = feature_acts(sae, corpus.residuals, features).cpu()
    parts = acts.split([sum(counted) for counted in corpus.contexts.counted])
    # A context in which no token counts has no highest activation.
    highest = torch.stack([part.amax(0) if len(part) else part.new_zeros(len(features)) for part in parts])
    strongest = highest.topk(min(MAX_SNIPPETS[name], len(parts)), dim=0)
    found = []
    for i, (values, which) in enumerate(zip(strongest.values.T.tolist(), strongest.indices.T.tolist(), strict=True)):
        contexts = [context for value, context in zip(values, which, strict=True) if value > 0]
        found.append([_snippet(parts[context][:, i], context, corpus, tokenizer, name) for context in contexts])
    return found


def _snippet(
    acts: Float[Tensor, " n_counted"],
    context: int,
    corpus: CorpusActivations,
    tokenizer: Any,
    name: Literal["forget", "retain"],
) -> Snippet:
    counted = corpus.contexts.counted[context]
    tokens = [token for token, counts in zip(corpus.contexts.tokens[context], counted, strict=True) if counts]
    end = min(len(tokens), int(acts.argmax()) + 1 + _TOKENS_AFTER)
    window = slice(max(0, end - MAX_TOKENS), end)
    return Snippet(
        corpus=name,
        tokens=[_shortened(text, MAX_TOKEN_CHARACTERS) for text in token_texts(tokenizer, tokens[window])],
        activations=[float(f"{value:.4g}") for value in acts[window].tolist()],
    )


def token_texts(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """Text that each token adds to those before it; of a character that several tokens make, the last has it."""
    texts, before = [], ""
    for end in range(1, len(tokens) + 1):
        # The beginning of a character decodes to replacement characters.
        text = tokenizer.decode(tokens[:end], clean_up_tokenization_spaces=False).rstrip("\ufffd")
        texts.append(text[len(before) :] if text.startswith(before) else tokenizer.decode([tokens[end - 1]]))
        before = text
    return texts


def _questions(sae: Any, edit: Edit, data: HookData) -> list[QuestionExample]:
    sides: dict[Literal["forget", "retain", "near"], QuestionEvaluator] = {
        "forget": data.evaluators["forget_held_out"],
        "retain": data.evaluators["retain_held_out"],
        "near": data.near,
    }
    found = []
    for side, evaluator in sides.items():
        fitting = [i for i, question in enumerate(evaluator.known) if len(question.options) <= MAX_OPTIONS]
        n = min(MAX_QUESTIONS[side], len(fitting))
        chosen = [fitting[i * len(fitting) // n] for i in range(n)]
        before, after = evaluator.option_probabilities(chosen, sae, edit)
        for place, i in enumerate(chosen):
            question = evaluator.known[i]
            found.append(
                QuestionExample(
                    side=side,
                    domain=_shortened(question.domain, 200),
                    stem=_shortened(question.stems[0], MAX_TEXT_CHARACTERS),
                    options=[_shortened(option, MAX_TEXT_CHARACTERS) for option in question.options],
                    answer_index=question.answer_index,
                    before=before[place],
                    after=after[place],
                )
            )
    return found


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
