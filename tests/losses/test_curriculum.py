"""A curriculum says which terms are on, how they warm up, and how much forget text takes part."""

import pytest

from sae_lens_contrastive.errors import ConfigError
from sae_lens_contrastive.losses.curriculum import Curriculum, CurriculumOptions, StagedScheduler

STAGES = {
    "reconstruct": {"start": 0.0, "loss_terms": []},
    "differentiate": {"start": 0.25, "loss_terms": ["margin", "groups"]},
    "unlearn": {"start": 0.5, "loss_terms": ["margin", "kl"]},
}


def curriculum(n_steps=40, **options):
    return Curriculum(CurriculumOptions(stages=STAGES, **options), n_steps)


def test_stages_begin_where_they_say():
    found = curriculum()
    assert [found.stage(step) for step in (0, 9, 10, 19, 20, 39)] == [
        "reconstruct",
        "reconstruct",
        "differentiate",
        "differentiate",
        "unlearn",
        "unlearn",
    ]


def test_a_term_is_active_since_the_stage_that_switched_it_on():
    found = curriculum()
    assert [found.active_since("margin", step) for step in (0, 10, 20)] == [None, 10, 10]
    assert [found.active_since("groups", step) for step in (0, 10, 20)] == [None, 10, None]
    assert [found.active_since("kl", step) for step in (0, 10, 20)] == [None, None, 20]


def test_a_coefficient_is_zero_until_its_stage_and_warms_up_from_there():
    scheduler = StagedScheduler("kl", curriculum(), warm_up_steps=4, final_value=2.0)
    seen = {}
    for step in range(30):
        seen[step] = scheduler.current_value
        scheduler.step()
    assert set(list(seen.values())[:21]) == {0.0}
    assert [seen[step] for step in (21, 22, 23, 24, 29)] == [0.5, 1.0, 1.5, 2.0, 2.0]


def test_a_term_without_warm_up_is_fully_on_at_the_first_step_of_its_stage():
    scheduler = StagedScheduler("margin", curriculum(), warm_up_steps=0, final_value=3.0)
    seen = [scheduler.current_value] + [scheduler.step() for _ in range(11)]
    assert seen[9:12] == [0.0, 3.0, 3.0]


def test_a_saved_scheduler_goes_on_where_it_was():
    scheduler = StagedScheduler("kl", curriculum(), warm_up_steps=4, final_value=2.0)
    for _ in range(22):
        scheduler.step()
    again = StagedScheduler("kl", curriculum(), warm_up_steps=4, final_value=2.0)
    again.load_state_dict(scheduler.state_dict())
    assert again.current_value == scheduler.current_value == 1.0
    assert [again.step() for _ in range(3)] == [scheduler.step() for _ in range(3)] == [1.5, 2.0, 2.0]


def test_the_forget_share_grows_linearly_and_then_stays():
    found = curriculum(forget_share_start=0.2, forget_share_full_at=0.5)
    assert [found.forget_share(step) for step in (0, 10, 20, 39)] == pytest.approx([0.2, 0.6, 1.0, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": {}}, "first must start at 0"),
        ({"stages": {"a": {"start": 0.1, "loss_terms": []}}}, "first must start at 0"),
        ({"stages": {"a": {"start": 0.0, "loss_terms": []}, "b": {"start": 1.0, "loss_terms": []}}}, "before 1"),
        ({"stages": {"a": {"start": 0.0}}}, "needs the key 'loss_terms'"),
        ({"stages": {"a": {"start": 0.0, "loss_terms": "kl"}}}, "must be of type"),
        ({"stages": STAGES, "forget_share_start": 0.0}, r"forget_share_start is 0\.0"),
        ({"stages": STAGES, "forget_share_full_at": 1.5}, r"forget_share_full_at is 1\.5"),
    ],
)
def test_impossible_stages_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        CurriculumOptions(**options)


def test_stages_and_terms_must_name_each_other():
    options = CurriculumOptions(stages=STAGES)
    with pytest.raises(ConfigError, match="groups"):
        options.check_terms(["margin", "kl"])
    with pytest.raises(ConfigError, match=r"loss_terms\.extra is on in no stage"):
        options.check_terms(["margin", "kl", "groups", "extra"])


def test_the_share_of_steps_in_which_a_term_is_on():
    stages = {"a": {"start": 0.0, "loss_terms": ["x"]}, "b": {"start": 0.2, "loss_terms": ["y"]}}
    stages["c"] = {"start": 0.75, "loss_terms": ["x"]}
    options = CurriculumOptions(stages=stages)
    assert options.share_on("x") == pytest.approx(0.45)
    assert options.share_on("y") == pytest.approx(0.55)
