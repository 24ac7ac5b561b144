"""Estimates against hand-computed values, and against what real steps and forward passes allocate."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sae_lens import LoggingConfig
from sae_lens.config import SAETrainerConfig
from torch.profiler import ProfilerActivity, profile

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.models import TINY_GEMMA_2, ModelShape, model_shape
from sae_lens_contrastive.saes import TRAINING_ARCHITECTURES
from sae_lens_contrastive.training import ContrastiveSAETrainer, resolve_runs
from sae_lens_contrastive.training.costs import (
    KEPT_COPIES,
    STATE_COPIES,
    STEP_COPIES,
    STEP_STATE_COPIES,
    forward_bytes,
    model_flops_per_token,
    n_blocks_run,
    n_sae_parameters,
    output_space_bytes,
    output_space_flops,
    sae_flops_per_token,
)
from sae_lens_contrastive.training.device_facts import assumed_gpu, device_facts
from sae_lens_contrastive.training.estimate import estimate, n_steps
from sae_lens_contrastive.training.plan import describe

CONFIGS = Path(__file__).parents[2] / "configs"
TINY, GEMMA = CONFIGS / "targets/tiny.yaml", CONFIGS / "targets/gemma-2-2b.yaml"
GEMMA_SHAPE = ModelShape(26, 2304, 9216, 8, 256, 256_000, 2_614_341_888, 77_865_984)
SMALL = ModelShape(4, 10, 20, 2, 5, 100, 3000, 500)
ARCHITECTURE_OPTIONS = {
    "standard": {"l1_coefficient": 1.0},
    "topk": {"k": 16},
    "batchtopk": {"k": 16},
    "jumprelu": {"l0_coefficient": 1.0},
    "matryoshka_batchtopk": {"k": 16},
}


def runs_of(target, *variants, **changes):
    return resolve_runs(target, [CONFIGS / f"variants/{name}.yaml" for name in variants], changes, any_device=True)


def gemma(*variants, shape=GEMMA_SHAPE, **changes):
    return estimate(runs_of(GEMMA, *variants, **changes), {"google/gemma-2-2b": shape}, {"cuda": assumed_gpu()})


def peak_bytes(function):
    """Most bytes allocated at a time beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = function()
    now = peak = 0
    events = record.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    del kept
    return peak


def trainer_of(architecture, d_in, d_sae, batch_size):
    sae_class, config_class = TRAINING_ARCHITECTURES[architecture]
    sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, **ARCHITECTURE_OPTIONS[architecture]))
    cfg = SAETrainerConfig(
        n_checkpoints=0,
        checkpoint_path=None,
        save_final_checkpoint=False,
        total_training_samples=100 * batch_size,
        device="cpu",
        autocast=False,
        lr=1e-3,
        lr_end=1e-4,
        lr_scheduler_name="constant",
        lr_warm_up_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        lr_decay_steps=0,
        n_restart_cycles=1,
        train_batch_size_samples=batch_size,
        dead_feature_window=1000,
        feature_sampling_window=2000,
        logger=LoggingConfig(log_to_wandb=False),
    )
    return ContrastiveSAETrainer(cfg, sae, iter(()))


@pytest.mark.parametrize("architecture", STEP_COPIES)
def test_a_step_holds_as_many_batch_activations_as_are_counted(architecture):
    torch.manual_seed(0)
    d_sae, batch_size = 2048, 256
    trainer = trainer_of(architecture, 16, d_sae, batch_size)
    batch = torch.randn(batch_size, 16)
    trainer.step(batch)
    copies = peak_bytes(lambda: trainer.step(batch)) / (4 * batch_size * d_sae)
    assert copies == pytest.approx(STEP_COPIES[architecture], rel=0.1)


def test_a_step_holds_as_many_copies_of_the_weights_as_are_counted():
    trainer = trainer_of("standard", 256, 1024, 8)
    batch = torch.randn(8, 256)
    parameter_bytes = 4 * n_sae_parameters(256, 1024, "standard")
    # The weights are there; the first step adds the moments, which stay.
    copies = 1 + peak_bytes(lambda: trainer.step(batch)) / parameter_bytes
    assert copies == pytest.approx(STATE_COPIES + STEP_STATE_COPIES, rel=0.05)


@pytest.mark.parametrize("architecture", STEP_COPIES)
def test_parameters_are_counted_as_the_sae_has_them(architecture):
    sae_class, config_class = TRAINING_ARCHITECTURES[architecture]
    sae = sae_class(config_class(d_in=6, d_sae=20, **ARCHITECTURE_OPTIONS[architecture]))
    assert n_sae_parameters(6, 20, architecture) == sum(parameter.numel() for parameter in sae.parameters())


@pytest.mark.parametrize(("n_sequences", "context_size"), [(32, 16), (2, 256)])
def test_a_forward_pass_holds_about_what_is_estimated(tiny, model_cache, n_sequences, context_size):
    tokens = torch.zeros((n_sequences, context_size), dtype=torch.long)

    @torch.no_grad()
    def forward():
        return tiny.run_with_cache(tokens, names_filter=["blocks.1.hook_resid_post"], stop_at_layer=2)

    forward()
    estimated = forward_bytes(model_shape(TINY_GEMMA_2), n_sequences, context_size, n_blocks=2, bytes_per=4)
    assert peak_bytes(forward) == pytest.approx(estimated, rel=0.4)


def test_flops_are_counted_by_hand():
    # 2 blocks: 2 x (2 x 500 parameters + 4 x 8 context x 2 heads x 5); all 4: the logits, 2 x 10 x 100, as well.
    assert model_flops_per_token(SMALL, 2, context_size=8) == 2 * (1000 + 320) == 2640
    assert model_flops_per_token(SMALL, 4, context_size=8) == 4 * 1320 + 2000
    assert sae_flops_per_token(10, 30) == 3600
    assert sae_flops_per_token(10, 30, "matryoshka_batchtopk") == 4500
    # 5 passes over 3 x 8 tokens through 2 blocks and the logits.
    assert output_space_flops(SMALL, n_above=2, n_texts=3, n_tokens=8) == 5 * 24 * (2640 + 2000)
    # Of 4 times as much retain text, 2 passes over forget and 4 x 3 over retain text.
    assert output_space_flops(SMALL, 2, 3, 8, retain_per_forget=4) == 14 * 24 * (2640 + 2000)


def test_bytes_are_counted_by_hand():
    # 3 x 8 tokens: (4 x 20 + 3 x 10) numbers of 2 bytes; 8 bytes for each of 3 x 2 x 64 scores.
    assert forward_bytes(SMALL, 3, 8, n_blocks=2, bytes_per=2) == 24 * 110 * 2 + 8 * 384
    assert forward_bytes(SMALL, 3, 8, n_blocks=4, bytes_per=2) == 24 * 110 * 2 + 8 * 384 + 24 * 100 * 6
    # Each side: 5 float32 tensors of 24 x 100, and 2 blocks of 24 x (100 + 80) numbers and 384 scores of 8 bytes.
    assert output_space_bytes(SMALL, 2, 3, 8, bytes_per=2) == 2 * (48_000 + 2 * (24 * 180 * 2 + 384 * 8))
    assert output_space_bytes(SMALL, 2, 3, 8, 2, retain_per_forget=4) == 5 * (48_000 + 2 * (24 * 180 * 2 + 384 * 8))


def test_blocks_up_to_the_hook_run():
    assert n_blocks_run("blocks.1.hook_resid_post", SMALL) == 2
    assert n_blocks_run("ln_final.hook_normalized", SMALL) == 4
    with pytest.raises(ConfigError, match=r"asks for layer 4, but the model has layers 0 to 3"):
        n_blocks_run("blocks.4.hook_resid_post", SMALL)


def test_gemma_takes_the_memory_that_adds_up():
    (stream,) = gemma("run0").streams
    (run,) = stream.runs
    assert stream.stays["model weights"] == 2 * 2_614_341_888
    # Three buffers of 128 contexts and one forward batch of 16, of 1,024 tokens each, in float32.
    assert stream.stays["activation buffers of 3 corpora"] == 3 * 144 * 1024 * 2304 * 4
    assert stream.at_forward["mixing one of them"] == 2 * 144 * 1024 * 2304 * 4
    assert run.stays["weights and Adam"] == 3 * 4 * (2 * 2304 * 2304 + 2 * 2304)
    assert run.stays["batch activations kept"] == KEPT_COPIES * 4096 * 2304 * 4
    assert run.checkpoint_bytes == run.stays["weights and Adam"]
    assert stream.peak_bytes == sum(stream.stays.values()) + sum(run.stays.values()) + sum(stream.at_forward.values())
    assert stream.fits


def test_gemma_takes_the_time_that_adds_up():
    (stream,) = gemma("run0").streams
    # Batches for training and for the norm, and three first buffers.
    assert stream.model_tokens == (50_000 + 50) * 4096 + 3 * 128 * 1024
    per_token = 20 * (2 * 77_865_984 + 4 * 1024 * 8 * 256)
    flops = assumed_gpu().flops["bfloat16"]
    assert stream.model_seconds == pytest.approx(stream.model_tokens * per_token / flops)
    assert stream.runs[0].seconds == pytest.approx(50_000 * 4096 * 12 * 2304**2 / flops)


def test_runs_side_by_side_share_the_model_and_take_turns():
    (alone,), (other,), (both,) = (gemma(*names).streams for names in (["run0"], ["run1"], ["run0", "run1"]))
    assert [run.run.variant for run in both.runs] == ["run0", "run1"]
    assert both.stays == alone.stays
    assert both.model_seconds == alone.model_seconds
    assert both.seconds == alone.seconds + other.runs[0].seconds
    # What a step needs for itself is not there twice; here the model's forward pass needs more than either.
    assert both.peak_bytes == alone.peak_bytes + sum(other.runs[0].stays.values())


def test_runs_on_different_streams_come_one_after_another():
    runs = [*runs_of(GEMMA, "run0"), *runs_of(GEMMA, "run1", seed=1)]
    plan = estimate(runs, {"google/gemma-2-2b": GEMMA_SHAPE}, {"cuda": assumed_gpu()})
    assert len(plan.streams) == 2
    assert plan.seconds == sum(stream.seconds for stream in plan.streams)
    assert "all 2 streams, one after another" in describe(plan)


def test_an_output_space_term_needs_the_model_above_the_hook():
    (plain,), (through_model,) = (gemma(name).streams for name in ("run2", "run3"))
    (run,) = through_model.runs
    assert run.at_step["output_kl"] == output_space_bytes(GEMMA_SHAPE, 6, 2, 1024, 2)
    # 64 sequences of each side.
    assert through_model.stays["sequences for output-space terms"] == 128 * 1024 * 2304 * 2
    assert run.seconds - plain.runs[0].seconds == pytest.approx(
        50_000 / 20 * output_space_flops(GEMMA_SHAPE, 6, 2, 1024) / assumed_gpu().flops["bfloat16"]
    )


def test_sentences_are_counted_and_only_the_stages_of_a_term():
    term = {"coefficient": 1.0, "every_n_steps": 1, "n_sequences": 2, "n_sentences": 16, "retain_per_forget": 4}
    margin = {"coefficient": 1.0, "n_features": 8}
    stages = {"find": {"start": 0.0, "loss_terms": ["sentence_margin"]}}
    stages["unlearn"] = {"start": 0.75, "loss_terms": ["sentence_margin", "output_kl"]}
    sae = {"loss_terms": {"sentence_margin": margin, "output_kl": term}, "curriculum": {"stages": stages}}
    corpora = {"output_space_sentences": 500}
    (stream,) = gemma("run0", sae=sae, corpora=corpora).streams
    without = {"loss_terms": {"sentence_margin": margin}, "curriculum": {"stages": {"find": stages["find"]}}}
    (plain,) = gemma("run0", sae=without, corpora=corpora).streams
    (run,) = stream.runs
    assert set(run.at_step) - set(plain.runs[0].at_step) == {"output_kl"}
    assert stream.stays["sentences for output-space terms"] == 2 * 500 * 32 * 2304 * 2
    texts = [(2, 1024), (16, 32)]
    assert run.at_step["output_kl"] == sum(output_space_bytes(GEMMA_SHAPE, 6, *text, 2, 4) for text in texts)
    each = sum(output_space_flops(GEMMA_SHAPE, 6, *text, 4) for text in texts) / assumed_gpu().flops["bfloat16"]
    assert run.seconds - plain.runs[0].seconds == pytest.approx(n_steps(run.run) / 4 * each, rel=1e-4)


def test_collected_activations_lie_in_the_memory_of_the_host():
    (stream,) = gemma("run0", training={"cache_tokens": 1000}).streams
    assert stream.model_tokens == 3000
    assert stream.on_host == {"activations collected once": 3 * 1000 * 2304 * 2}
    assert not any("buffer" in name for name in stream.stays)


def test_what_does_not_fit_is_named():
    plan = gemma("run0", training={"store_batch_size_prompts": 1024})
    assert not plan.streams[0].fits
    assert "DOES NOT FIT. Largest: one block of the model 160" in describe(plan)
    assert "fits" in describe(gemma("run0"))


def test_without_a_shape_the_saes_are_estimated():
    run0, run3 = (estimate(runs_of(GEMMA, name), {}, {"cuda": assumed_gpu()}).streams[0] for name in ("run0", "run3"))
    assert run0.runs[0].seconds == gemma("run0").streams[0].runs[0].seconds
    assert (run0.model_seconds, run0.seconds, run3.runs[0].seconds) == (None, None, None)
    assert "model weights" not in run0.stays


def test_the_memory_of_a_cpu_is_that_of_the_host(model_cache):
    runs = runs_of(TINY, "run1")
    (stream,) = estimate(runs, {TINY_GEMMA_2: model_shape(TINY_GEMMA_2)}, {"cpu": assumed_gpu()}).streams
    on_host = sum(stream.on_host.values()) + sum(stream.runs[0].on_host.values())
    assert on_host > 0
    without = replace(stream, on_host={}, runs=(replace(stream.runs[0], on_host={}),))
    assert stream.peak_bytes == without.peak_bytes + on_host


def test_a_present_device_is_measured_and_an_absent_one_assumed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_facts("cuda:1") == assumed_gpu()
    assert assumed_gpu().memory_bytes == 80e9
    cpu = device_facts("cpu")
    assert cpu.source.startswith("measured")
    assert min(cpu.flops.values()) > 1e8
    with pytest.raises(ConfigError, match="Unknown device 'gpu'"):
        device_facts("gpu")
