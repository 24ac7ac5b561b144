from pathlib import Path

import pytest
from sae_lens import LanguageModelSAERunnerConfig

from sae_lens_contrastive.config import load_yaml
from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses import LOSS_TERMS
from sae_lens_contrastive.training import RunConfig, resolve_run
from sae_lens_contrastive.training.identity import stream_key
from sae_lens_contrastive.training.run_config import TrainingOptions

CONFIGS = Path(__file__).parents[2] / "configs"
TARGET = CONFIGS / "targets" / "tiny.yaml"


@pytest.fixture
def changes(corpora):
    """Overrides that replace the embedded corpora by small ones."""
    return {"corpora": {**corpora, "hold_out_entities_of": []}}


def _variant(tmp_path, text, name="mine"):
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_variant_is_named_by_its_file_unless_it_says_otherwise(tmp_path, changes):
    assert resolve_run(TARGET, _variant(tmp_path, "description: x"), changes).variant == "mine"
    assert resolve_run(TARGET, _variant(tmp_path, "variant: other"), changes).variant == "other"


def test_overrides_win_over_the_variant_and_the_variant_over_the_target(tmp_path, changes):
    variant = _variant(tmp_path, "sae: {d_sae: 100}\ntraining: {lr: 0.5}")
    run = resolve_run(TARGET, variant, {**changes, "training": {"lr": 0.25}})
    target = load_yaml(TARGET)
    assert (run.sae["d_sae"], run.training.lr) == (100, 0.25)
    assert run.sae["d_in"] == target["sae"]["d_in"]
    assert run.training.context_size == target["training"]["context_size"]


def test_null_takes_a_loss_term_of_the_variant_out(tmp_path, changes):
    terms = "{forget_margin: {coefficient: 1.0}, supervised_contrastive: {coefficient: 1.0}}"
    variant = _variant(tmp_path, f"sae: {{loss_terms: {terms}}}")
    run = resolve_run(TARGET, variant, {**changes, "sae": {"loss_terms": {"forget_margin": None}}})
    assert list(run.sae_config().loss_terms) == ["supervised_contrastive"]


def test_coverage_needs_reserved_features(tmp_path, changes):
    variant = _variant(tmp_path, "sae: {coverage: {every_n_steps: 5}}")
    with pytest.raises(ConfigError, match="no loss term reserves any"):
        resolve_run(TARGET, variant, changes)
    for term in ("forget_margin: {coefficient: 1.0}", "output_kl: {coefficient: 1.0, features: reserved}"):
        reserving = _variant(tmp_path, f"sae: {{coverage: {{}}, loss_terms: {{{term}}}}}")
        assert resolve_run(TARGET, reserving, changes).sae_config().needs_domains()[-1] == "coverage"


def test_whitening_needs_reserved_features_and_text_at_the_hook(tmp_path, changes):
    with pytest.raises(ConfigError, match="whitening works on reserved features, but no loss term reserves any"):
        resolve_run(TARGET, _variant(tmp_path, "sae: {whitening: {}}"), changes)
    margin = "sae: {whitening: {}, loss_terms: {forget_margin: {coefficient: 1.0}}}"
    with pytest.raises(ConfigError, match=r"Use loss_terms.sentence_margin in its place"):
        resolve_run(TARGET, _variant(tmp_path, margin), changes)


@pytest.mark.parametrize(
    "term", ["sentence_margin: {coefficient: 1.0}", "output_kl: {coefficient: 1.0, n_sentences: 4}"]
)
def test_terms_on_sentences_need_sentences(tmp_path, changes, term):
    variant = _variant(tmp_path, f"sae: {{loss_terms: {{{term}}}}}")
    corpora = changes["corpora"]
    without = {**changes, "corpora": {**corpora, "output_space_sentences": 0}}
    with pytest.raises(ConfigError, match=r"reads single sentences, but corpora.output_space_sentences is 0"):
        resolve_run(TARGET, variant, without)
    keys = [
        stream_key(resolve_run(TARGET, variant, {**changes, "corpora": {**corpora, "output_space_sentences": n}}))
        for n in (8, 9)
    ]
    assert keys[0] != keys[1]


def test_an_architecture_is_one_name(tmp_path, changes):
    with pytest.raises(ConfigError, match=r"Unknown sae\.architecture \['topk'\].*Allowed: batchtopk, jumprelu"):
        resolve_run(TARGET, _variant(tmp_path, "sae: {architecture: [topk]}"), changes)


def test_only_the_defaults_of_the_chosen_architecture_are_used(tmp_path, changes):
    topk = resolve_run(TARGET, _variant(tmp_path, "sae: {architecture: topk}"), changes)
    assert topk.sae_config().k == load_yaml(TARGET)["architectures"]["topk"]["k"]
    standard = resolve_run(TARGET, _variant(tmp_path, "sae: {architecture: standard, l1_coefficient: 0.04}"), changes)
    assert standard.sae_config().l1_coefficient == 0.04
    assert not hasattr(standard.sae_config(), "k")


def test_the_runner_configuration_carries_every_option(tmp_path, changes):
    run = resolve_run(
        TARGET, _variant(tmp_path, "seed: 3\ntraining: {lr: 0.125, adam_beta1: 0.5, n_checkpoints: 2}"), changes
    )
    config = run.runner_config(tmp_path / "out")
    assert isinstance(config, LanguageModelSAERunnerConfig)
    assert (config.seed, config.lr, config.adam_beta1, config.n_checkpoints) == (3, 0.125, 0.5, 2)
    assert config.output_path == str(tmp_path / "out" / "sae")
    assert config.hook_name == "blocks.19.hook_resid_post"
    assert not config.logger.log_to_wandb


@pytest.mark.parametrize("managed", ["dtype", "device", "metadata"])
def test_what_the_run_sets_itself_is_refused_in_the_sae(tmp_path, changes, managed):
    with pytest.raises(ConfigError, match=rf"sae\.{managed} is set by the run itself; set {managed} at the top level"):
        resolve_run(TARGET, _variant(tmp_path, f"sae: {{{managed}: x}}"), changes)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_variant_name_is_a_plain_folder_name(tmp_path, changes, name):
    with pytest.raises(ConfigError, match="variant"):
        resolve_run(TARGET, _variant(tmp_path, f"variant: {name!r}"), changes)


@pytest.mark.parametrize("value", [".inf", ".nan", "0"])
def test_the_learning_rate_is_a_positive_number(tmp_path, changes, value):
    with pytest.raises(ConfigError, match=r"training\.lr"):
        resolve_run(TARGET, _variant(tmp_path, f"training: {{lr: {value}}}"), changes)


def test_a_schedule_has_steps_of_its_own(tmp_path, changes):
    steps = "train_batch_size_tokens: 256, training_tokens: 2560, lr_warm_up_steps: 6, lr_decay_steps: 4"
    variant = _variant(tmp_path, f"training: {{{steps}, lr_scheduler_name: cosineannealing}}")
    with pytest.raises(ConfigError, match="leave nothing of the 10 steps to lr_scheduler_name: cosineannealing"):
        resolve_run(TARGET, variant, changes)
    resolve_run(TARGET, _variant(tmp_path, f"training: {{{steps}}}"), changes)


def test_a_resolved_run_reads_back_as_itself(tmp_path, changes):
    run = resolve_run(TARGET, CONFIGS / "variants" / "contrastive.yaml", changes)
    assert RunConfig.model_validate(run.model_dump(mode="json")) == run


@pytest.mark.parametrize("variant", sorted((CONFIGS / "variants").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_variant_resolves_and_uses_known_terms(changes, variant):
    run = resolve_run(TARGET, variant, changes)
    assert run.variant == variant.stem
    assert run.description
    assert set(run.sae.get("loss_terms", {})) <= set(LOSS_TERMS)


def test_every_training_option_is_explained():
    assert [name for name, field in TrainingOptions.model_fields.items() if not field.description] == []
