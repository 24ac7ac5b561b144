"""What was forgotten: clamp the forget features of an SAE and score multiple-choice questions."""

from sae_lens_contrastive.unlearning.evaluate import evaluate_saes as evaluate_saes
from sae_lens_contrastive.unlearning.output import UnlearningResult as UnlearningResult
from sae_lens_contrastive.unlearning.spec import EvalSpec as EvalSpec
from sae_lens_contrastive.unlearning.spec import check_spec as check_spec
from sae_lens_contrastive.unlearning.subject import SaeUnderTest as SaeUnderTest
