"""Edits of selected features at a residual-stream hook; what the SAE does not reconstruct stays in place."""

from sae_lens_contrastive.interventions.base import INTERVENTIONS as INTERVENTIONS
from sae_lens_contrastive.interventions.base import Intervention as Intervention
from sae_lens_contrastive.interventions.base import TokenTable as TokenTable
from sae_lens_contrastive.interventions.base import check_multiplier as check_multiplier
from sae_lens_contrastive.interventions.base import intervention_class as intervention_class
from sae_lens_contrastive.interventions.base import register_intervention as register_intervention
from sae_lens_contrastive.interventions.clamp import Clamp as Clamp
from sae_lens_contrastive.interventions.editing import check_editable as check_editable
from sae_lens_contrastive.interventions.editing import decoder_rows as decoder_rows
from sae_lens_contrastive.interventions.editing import edit_residual as edit_residual
from sae_lens_contrastive.interventions.editing import feature_acts as feature_acts
from sae_lens_contrastive.interventions.editing import tokens_at_once as tokens_at_once
from sae_lens_contrastive.interventions.gated import FittedGated as FittedGated
from sae_lens_contrastive.interventions.gated import Gated as Gated
from sae_lens_contrastive.interventions.hot_token import HotTokenClamp as HotTokenClamp
from sae_lens_contrastive.interventions.zero import Zero as Zero
