"""Answers that are no numbers stop an evaluation; they do not pass for forgotten ones."""

import math

import pytest
import torch

from sae_lens_contrastive.data.questions import Question
from sae_lens_contrastive.errors import UserError
from sae_lens_contrastive.unlearning.not_finite import check_finite
from sae_lens_contrastive.unlearning.option_scores import option_scores
from sae_lens_contrastive.unlearning.prompts import Prompt, Spot

QUESTION = Question(
    "capital/france", "countries", "capital", "France", ("The capital of France is",), ("Rome", "Paris"), 1, "select"
)
PROMPT = Prompt(question=0, phrasing=0, tokens=(1, 2), spots=[Spot(1, 7, 0), Spot(1, 8, 1)])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_names_the_question(value):
    assert option_scores([QUESTION], [PROMPT], [torch.tensor([-2.0, -1.0])], "sum") == {0: [-2.0, -1.0]}
    with pytest.raises(
        UserError, match=r"question 'capital/france': the model's numbers are not finite\. Run it in float32"
    ):
        option_scores([QUESTION], [PROMPT], [torch.tensor([-2.0, value])], "sum")


def test_any_of_several_values_is_enough():
    check_finite((0.0, -1e300), "The loss")
    with pytest.raises(UserError, match="The loss"):
        check_finite((0.0, math.nan), "The loss")
