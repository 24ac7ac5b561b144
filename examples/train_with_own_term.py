"""Train with the term of own_loss_term.py from a stock SAELens runner configuration."""

import sys

import own_loss_term  # noqa: F401 # pyright: ignore[reportUnusedImport] - importing it registers the term
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig

from sae_lens_contrastive import ContrastiveTopKTrainingSAEConfig, ContrastiveTrainingRunner, DomainData
from sae_lens_contrastive.data.corpora import load_corpus, to_dataset
from sae_lens_contrastive.data.sources import corpus_file


def main(model_name: str, hook_name: str, d_in: int, training_tokens: int, output_path: str) -> None:
    """Train a TopK SAE whose features tell text about countries from text about elements."""
    cfg = LanguageModelSAERunnerConfig(
        sae=ContrastiveTopKTrainingSAEConfig(
            d_in=d_in, d_sae=4 * d_in, k=8, loss_terms={"shared_activation": {"coefficient": 1.0}}
        ),
        model_name=model_name,
        hook_name=hook_name,
        training_tokens=training_tokens,
        train_batch_size_tokens=512,
        context_size=64,
        store_batch_size_prompts=8,
        exclude_special_tokens=True,
        is_dataset_tokenized=False,
        checkpoint_path=None,
        output_path=output_path,
        logger=LoggingConfig(log_to_wandb=False),
    )
    general, forget, retain = (
        to_dataset(load_corpus(corpus_file(f"world_facts/{name}")))
        for name in ("general", "countries", "chemical_elements")
    )
    ContrastiveTrainingRunner(cfg, DomainData(forget, retain), override_dataset=general).run()


if __name__ == "__main__":
    main("tiny-random-gemma-2", "blocks.19.hook_resid_post", 32, 8192, sys.argv[1])
