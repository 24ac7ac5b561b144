"""Models by name, and the model in two halves around a hook."""

from sae_lens_contrastive.models.bridge import HookedBridge as HookedBridge
from sae_lens_contrastive.models.bridge import check_hook as check_hook
from sae_lens_contrastive.models.digest import model_digest as model_digest
from sae_lens_contrastive.models.digest import weights_digest as weights_digest
from sae_lens_contrastive.models.embedded import SMOLLM2 as SMOLLM2
from sae_lens_contrastive.models.embedded import TINY_GEMMA_2 as TINY_GEMMA_2
from sae_lens_contrastive.models.generation import greedy_continuations as greedy_continuations
from sae_lens_contrastive.models.loading import check_device as check_device
from sae_lens_contrastive.models.loading import check_model_name as check_model_name
from sae_lens_contrastive.models.loading import device_type as device_type
from sae_lens_contrastive.models.loading import is_present as is_present
from sae_lens_contrastive.models.loading import load_model as load_model
from sae_lens_contrastive.models.loading import why_no_hub as why_no_hub
from sae_lens_contrastive.models.packed import KeyValues as KeyValues
from sae_lens_contrastive.models.packed import PackedModel as PackedModel
from sae_lens_contrastive.models.packed import PackedRows as PackedRows
from sae_lens_contrastive.models.packed import can_pack as can_pack
from sae_lens_contrastive.models.residual import ModelAboveHook as ModelAboveHook
from sae_lens_contrastive.models.residual import residual_at_hook as residual_at_hook
from sae_lens_contrastive.models.shape import ModelShape as ModelShape
from sae_lens_contrastive.models.shape import model_shape as model_shape
