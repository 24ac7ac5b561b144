"""What is refused before a model is loaded, and what is not."""

import pytest
import torch
from made_runs import HOOK, TARGET, overrides, variants, weights
from sae_lens import LanguageModelSAERunnerConfig, LoggingConfig

from sae_lens_contrastive import ConfigError, ContrastiveTopKTrainingSAEConfig
from sae_lens_contrastive.training import resolve_runs, train_runs
from sae_lens_contrastive.training.requirements import check_output_space_given, check_runner_config

OUTPUT_KL = {"output_kl": {"coefficient": 1.0, "n_features": 4}}
SENTENCE_MARGIN = {"sentence_margin": {"coefficient": 1.0, "n_features": 4, "n_sentences": 3, "n_sequences": 1}}


def config(loss_terms=(), reshape_activations="none", **options):
    sae = ContrastiveTopKTrainingSAEConfig(
        d_in=32, d_sae=64, k=4, loss_terms=dict(loss_terms), reshape_activations=reshape_activations
    )
    return LanguageModelSAERunnerConfig(
        sae=sae,
        **{
            "model_name": "tiny-random-gemma-2",
            "hook_name": HOOK,
            "training_tokens": 8192,
            "train_batch_size_tokens": 1024,
            "logger": LoggingConfig(log_to_wandb=False),
            **options,
        },
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_cached_activations": True}, "activations of one corpus.* forget and the retain corpus too. Set it to"),
        (
            {"compile_sae": True, "loss_terms": {"feature_kl": {"coefficient": 1.0}}},
            r"compile_sae: true does not work with loss_terms \(feature_kl\).*Set compile_sae: false",
        ),
        (
            {"hook_name": "blocks.19.hook_mlp_out", "loss_terms": OUTPUT_KL},
            r"Unknown residual-stream hook 'blocks\.19\.hook_mlp_out'.*Allowed: blocks\.L\.hook_resid_post",
        ),
        (
            {"hook_name": "blocks.19.hook_mlp_out", "loss_terms": SENTENCE_MARGIN},
            r"Unknown residual-stream hook 'blocks\.19\.hook_mlp_out'",
        ),
        (
            {"reshape_activations": "hook_z"},
            r"reshape_activations is 'hook_z', but hook_name is 'blocks\.19\.hook_resid_post'\. Set it to none",
        ),
        (
            {"llm_device": "cuda:1", "loss_terms": OUTPUT_KL},
            r"llm_device is 'cuda:1' and device is 'cpu'\. Set llm_device: cpu",
        ),
        (
            {"prefetch_llm_batches": True, "loss_terms": OUTPUT_KL},
            r"loss_terms\.output_kl runs the model in the training step.*Set prefetch_llm_batches: false",
        ),
    ],
)
def test_what_fails_late_or_silently_is_refused_before(options, message):
    with pytest.raises(ConfigError, match=message):
        check_runner_config(config(**options), has_domains=True)


@pytest.mark.parametrize(
    "options",
    [
        {"compile_sae": True},
        {"hook_name": "blocks.19.hook_mlp_out", "loss_terms": {"feature_kl": {"coefficient": 1.0}}},
        {"hook_name": "blocks.19.attn.hook_z", "reshape_activations": "hook_z"},
        {"llm_device": "cuda:1", "loss_terms": {"feature_kl": {"coefficient": 1.0}}},
        {"prefetch_llm_batches": True, "loss_terms": SENTENCE_MARGIN},
    ],
)
def test_what_works_is_not_refused(options):
    check_runner_config(config(**options), has_domains=True)


def test_one_corpus_may_come_from_the_hosts_cache():
    check_runner_config(config(use_cached_activations=True), has_domains=False)


def test_a_term_on_prepared_text_is_told_what_it_lacks():
    with pytest.raises(ConfigError, match=r"sentence_margin reads text at the hook or runs the model above it\. Train"):
        check_output_space_given(config(SENTENCE_MARGIN).sae, given=False)


def test_a_term_that_only_reads_text_trains_the_same_beside_a_thread_that_runs_the_model(tiny_model, corpora, tmp_path):
    found = []
    for prefetch in (False, True):
        streamed = {"cache_tokens": 0, "n_batches_in_buffer": 16, "prefetch_llm_batches": prefetch}
        changes = overrides({**corpora, "output_space_sentences": 8}, **streamed)
        runs = resolve_runs(TARGET, variants("baseline"), {**changes, "sae": {"loss_terms": SENTENCE_MARGIN}})
        found.append(weights(train_runs(runs, tmp_path / str(prefetch), tiny_model)[0]))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
