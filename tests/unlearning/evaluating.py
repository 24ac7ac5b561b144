"""One SAE evaluated."""

from sae_lens_contrastive.unlearning import evaluate_saes


def evaluate(spec, subject, tiny, out=None):
    (result,) = evaluate_saes(spec, {"one": subject}, out, model=tiny)
    return result
