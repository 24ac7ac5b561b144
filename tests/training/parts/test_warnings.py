"""Warnings of trainings that go wrong without failing: each once, none without a reason."""

import logging

import pytest
import torch
from test_trainer import BATCH, DOMAINS, MARGIN, Stream, make_sae, trainer_config

from sae_lens_contrastive.training import ContrastiveSAETrainer
from sae_lens_contrastive.training.parts.warnings import WarningsPart, probe_auc


class OneText(Stream):
    """Forget and retain tokens are alike."""

    def __next__(self):
        return torch.randn(BATCH, 8, generator=self.generator)


def warnings_of(trainer):
    (part,) = [part for part in trainer.parts if isinstance(part, WarningsPart)]
    return {record["about"]: record for record in part.records}


def trained(caplog, stream=None, steps=150, sae=None, **changes):
    sae = make_sae(loss_terms=MARGIN) if sae is None else sae
    trainer = ContrastiveSAETrainer(trainer_config(steps, **changes), sae, stream or Stream(), DOMAINS)
    with caplog.at_level(logging.WARNING, logger="sae_lens_contrastive"):
        trainer.fit()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("sae_lens_contrastive")]
    return trainer, said


def test_a_training_that_goes_well_is_not_warned_of(caplog):
    trainer, said = trained(caplog, dead_feature_window=1000)
    assert said == []
    assert set(warnings_of(trainer)) == {"probe"}
    assert warnings_of(trainer)["probe"]["auc"] == pytest.approx(1.0, abs=1e-3)


def test_domains_that_are_one_are_warned_of_once(caplog):
    trainer, said = trained(caplog, OneText(), steps=300, dead_feature_window=1000)
    (only,) = [message for message in said if "linear probe" in message]
    assert "these corpora are one" in only
    assert warnings_of(trainer)["domains"]["step"] == warnings_of(trainer)["probe"]["step"] == 127


def test_a_term_that_drowns_the_others_is_named_after_five_looks(caplog):
    sae = make_sae(loss_terms={"forget_margin": {**MARGIN["forget_margin"], "coefficient": 1e6, "margin": 1e3}})
    trainer, said = trained(caplog, sae=sae, dead_feature_window=1000)
    (only,) = [message for message in said if "forget_margin_loss" in message]
    assert "more than 100 times all other losses" in only
    # The coefficient is 0 at step 0 and warms up from there: looks at 10, 20, 30, 40 and 50.
    assert warnings_of(trainer)["forget_margin_loss"]["step"] == 50


def test_a_dead_dictionary_is_warned_of_once(caplog):
    sae = make_sae()
    with torch.no_grad():
        # Of 24 features two fire always and the others never.
        sae.W_enc[:, 2:] = 0.0
        sae.b_enc[:2], sae.b_enc[2:] = 1e3, -1e3
    trainer, said = trained(caplog, sae=sae, dead_feature_window=10, steps=60)
    (only,) = [message for message in said if "count as dead" in message]
    assert "92% of the features" in only
    assert warnings_of(trainer)["dead"]["step"] == 10


def test_a_resumed_run_does_not_warn_again(tmp_path, caplog):
    trainer, said = trained(caplog, OneText(), steps=150, dead_feature_window=1000)
    assert said
    trainer.save_trainer_state(tmp_path)
    caplog.clear()
    again = ContrastiveSAETrainer(
        trainer_config(300, dead_feature_window=1000), make_sae(loss_terms=MARGIN), OneText(), DOMAINS
    )
    again.load_trainer_state(tmp_path)
    with caplog.at_level(logging.WARNING, logger="sae_lens_contrastive"):
        again.fit()
    assert not [record for record in caplog.records if "linear probe" in record.getMessage()]


def test_a_resumed_run_probes_and_counts_as_one_that_was_not_interrupted(tmp_path, caplog):
    drowned = {"forget_margin": {**MARGIN["forget_margin"], "coefficient": 1e6, "margin": 1e3}}

    def trainer_of(sae, stream, steps):
        return ContrastiveSAETrainer(trainer_config(steps, dead_feature_window=1000), sae, stream, DOMAINS)

    whole = trainer_of(make_sae(loss_terms=drowned), OneText(), 150)
    whole.fit()
    sae, stream = make_sae(loss_terms=drowned), OneText()
    # Three looks at a term that drowns the others, and a quarter of the probe's tokens.
    first = trainer_of(sae, stream, 35)
    first.fit()
    first.save_trainer_state(tmp_path)
    resumed = trainer_of(sae, stream, 150)
    resumed.load_trainer_state(tmp_path)
    resumed.fit()
    assert {"probe", "forget_margin_loss"} <= set(warnings_of(whole))
    assert warnings_of(resumed) == warnings_of(whole)


def test_the_probe_is_tested_on_tokens_that_it_was_not_fitted_on():
    generator = torch.Generator().manual_seed(0)
    # As many dimensions as tokens: a probe would tell anything apart that it was fitted on.
    forget, retain = (torch.randn(100, 100, generator=generator) for _ in range(2))
    assert 0.3 < probe_auc(forget, retain) < 0.7
    forget[:, 0] += 6
    assert probe_auc(forget, retain) > 0.95
