import pytest

from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning import SaeUnderTest, check_spec, evaluate_saes
from sae_lens_contrastive.unlearning import shared as shared_module
from sae_lens_contrastive.unlearning.evaluate import select_frontier, selection_data

HOOK = "blocks.19.hook_resid_post"


def test_the_frontier_is_that_of_an_evaluation_without_its_held_out_questions(
    tiny, spec, planted, tmp_path, monkeypatch
):
    planted.save_model(tmp_path / "sae")
    subject = SaeUnderTest(variant="planted", path=tmp_path / "sae")
    (result,) = evaluate_saes(spec, {"one": subject}, None, model=tiny)
    put = []
    original = shared_module.QuestionEvaluator

    def recording(runner, model, questions, *args, **kwargs):
        put.extend(questions)
        return original(runner, model, questions, *args, **kwargs)

    monkeypatch.setattr(shared_module, "QuestionEvaluator", recording)
    inputs = check_spec(spec)
    data = selection_data(tiny, HOOK, spec, inputs)
    on_select = [
        s.model_copy(update={"forget_accuracy_all": None, "retain_accuracy_all": None}) for s in result.frontier
    ]
    assert select_frontier("one", subject, data) == on_select
    assert min(setting.forget_accuracy for setting in result.frontier) < 1
    assert put == [*inputs.forget_questions["select"], *inputs.retain_questions["select"]]
    assert {question.split for question in put} == {"select"}


def test_too_few_known_questions_are_refused(tiny, make_spec):
    spec = make_spec(min_known_questions=9)
    with pytest.raises(UserError, match=r"knows 8 of the 8 forget questions .*min_known_questions \(9\)"):
        selection_data(tiny, HOOK, spec, check_spec(spec))
