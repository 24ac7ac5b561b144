import pytest
from made_sweeps import COEFFICIENT, CONFIGS, K, variants

from sae_lens_contrastive.cli import main
from sae_lens_contrastive.sweep import resolve_sweep
from sae_lens_contrastive.sweep.jobs import job_digest
from sae_lens_contrastive.sweep.spec import Resources

LR = "training.lr"


def digests(sweep):
    return {
        (run.variant, run.seed): job_digest(run, sweep.spec, sweep.inputs.digest)
        for trial in sweep.grid
        for run in trial.runs
    }


def test_a_grid_is_every_variant_with_every_combination_and_seed(sweep_file):
    own = resolve_sweep(sweep_file(seeds=[3, 1])).grid
    assert [(trial.number, trial.params) for trial in own] == [
        (0, {K: 4, COEFFICIENT: 1}),
        (1, {K: 4, COEFFICIENT: 10}),
        (2, {K: 8, COEFFICIENT: 1}),
        (3, {K: 8, COEFFICIENT: 10}),
    ]
    assert [run.seed for run in own[2].runs] == [3, 1]
    assert {run.sae["k"] for run in own[2].runs} == {8}
    assert own[1].runs[0].sae["loss_terms"]["forget_margin"]["coefficient"] == 10
    assert [trial.runs[0].variant for trial in own][:2] == [
        "contrastive_k-4_coefficient-1",
        "contrastive_k-4_coefficient-10",
    ]


def test_several_variants_are_told_apart_in_the_values(sweep_file):
    trials = resolve_sweep(sweep_file(variants=variants("baseline", "contrastive"), grid={K: [4, 8]})).grid
    assert [trial.params for trial in trials] == [
        {"variant": variant, K: k} for variant in ("baseline", "contrastive") for k in (4, 8)
    ]
    assert [trial.runs[0].variant for trial in trials][::3] == ["baseline_k-4", "contrastive_k-8"]
    (plain,) = resolve_sweep(sweep_file(grid={})).grid
    assert (plain.params, plain.runs[0].variant) == ({}, "contrastive")


def test_names_hold_what_a_folder_can_and_differ_where_rounded_values_do_not(sweep_file):
    grid = {"hook_name": ["blocks.19.hook_resid_post"], LR: [0.00123456, 0.00123457, 0.001]}
    names = [trial.runs[0].variant for trial in resolve_sweep(sweep_file(grid=grid)).grid]
    assert names[2] == "contrastive_hook_name-blocks.19.hook_resid_post_lr-0.001"
    assert len(set(names)) == 3
    assert all(name.startswith("contrastive_hook_name-blocks.19.hook_resid_post_lr-0.00123_") for name in names[:2])


def test_a_job_is_known_by_its_configuration_alone(sweep_file):
    first = digests(resolve_sweep(sweep_file()))
    assert len(set(first.values())) == 4
    assert digests(resolve_sweep(sweep_file())) == first
    # A grid that has grown has the same jobs and more; resources and retries say nothing of a result.
    more = resolve_sweep(sweep_file(grid={K: [2, 8, 4], COEFFICIENT: [10, 1]}, seeds=[1, 0], retries=0))
    assert digests(more).items() > first.items()
    assert len(digests(more)) == 12
    assert resolve_sweep(sweep_file(resources={"num_cpus": 7})).identity() == more.identity()
    for changes in ({"overrides": {"training": {"lr": 0.5}}}, {"spec_overrides": {"n_bootstrap": 50}}):
        assert set(digests(resolve_sweep(sweep_file(**changes))).values()).isdisjoint(first.values())


def test_a_search_is_continued_by_the_same_search_alone(searched):
    first = resolve_sweep(searched(n_trials=4)).identity()
    assert resolve_sweep(searched(n_trials=9)).identity() == first
    assert resolve_sweep(searched(n_trials=4, seeds=[0, 1])).identity() != first
    assert resolve_sweep(searched(n_trials=4, population_size=5)).identity() != first


def test_a_device_that_is_not_here_suits_a_plan_and_a_cluster(sweep_file):
    file = sweep_file(overrides={"device": "cuda:7"}, resources={"num_gpus": 0.5})
    assert resolve_sweep(file, any_device=True).resources == Resources(num_cpus=1, num_gpus=0.5)
    assert {run.device for trial in resolve_sweep(file, any_device=True).grid for run in trial.runs} == {"cuda:7"}


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_the_shipped_sweeps_are_valid(name):
    assert resolve_sweep(CONFIGS / f"sweeps/{name}.yaml").grid


SPACE = {"space": {K: {"choices": [4, 8]}}}
BAD_SWEEPS = {
    "unknown key": ({"seed": 3}, ["Unknown key 'seed'", "Did you mean 'seeds'?"]),
    "unknown key of the resources": ({"resources": {"cpus": 3}}, ["'resources.cpus'", "resources.num_cpus"]),
    "no CPU": ({"resources": {"num_cpus": 0}}, ["resources.num_cpus", "greater than 0"]),
    "a grid and a search": ({"search": SPACE}, ["a search has one variant and no grid"]),
    "a value twice": ({"grid": {K: [4, 4]}}, ["sae.k needs one value or more, each once, got [4, 4]"]),
    "a value twice in two forms": ({"grid": {LR: [1, 1.0]}}, ["training.lr needs one value or more, each once"]),
    "no value": ({"grid": {K: []}}, ["sae.k needs one value or more"]),
    "one value where a list belongs": ({"grid": {K: 4}}, ["grid.sae.k", "list"]),
    "another model": ({"grid": {"model": ["a"]}}, ["grid.model cannot be varied"]),
    "seeds in the grid": ({"grid": {"seed": [1]}}, ["grid.seed", "a key of their own, seeds"]),
    "seeds in the space": (
        {"grid": {}, "search": {"space": {"seed": {"choices": [1]}}}},
        ["search.space.seed", "a key of their own, seeds"],
    ),
    "a value that no run has": ({"grid": {K: [4, 500]}}, ["k is 500", "d_sae (128)"]),
    "a key that no run has": ({"grid": {"training.lrr": [1]}}, ["'training.lr'"]),
    "an empty range": (
        {"grid": {}, "search": {"space": {LR: {"low": 2, "high": 1}}}},
        ["sweep.yaml: search.space.training.lr: low is 2 and high is 1"],
    ),
    "a seed twice": ({"seeds": [1, 1]}, ["[1, 1] must be distinct seeds of 0 or more"]),
    "retries below none": ({"retries": -1}, ["retries", "greater than or equal to 0"]),
    "missing variant": ({"variants": ["gone.yaml"]}, ["No file at gone.yaml"]),
    "a GPU that no job asks for": ({"overrides": {"device": "cuda"}}, ["cuda", "available on this machine"]),
    "unknown override of the specification": ({"spec_overrides": {"sed": 1}}, ["Unknown key 'sed'", "'seed'"]),
}


@pytest.mark.parametrize(("changes", "messages"), BAD_SWEEPS.values(), ids=BAD_SWEEPS)
def test_a_bad_sweep_is_refused_before_anything_is_written(sweep_file, capsys, changes, messages):
    assert main(["sweep", sweep_file(**changes), "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert [message for message in messages if message not in error] == []
    assert error.count("\n") == 1


def test_jobs_on_a_gpu_must_ask_for_one(sweep_file, capsys):
    assert main(["sweep", sweep_file(overrides={"device": "cuda"}), "--dry-run"]) == 2
    assert "the runs are on cuda, but resources.num_gpus is 0" in capsys.readouterr().err
