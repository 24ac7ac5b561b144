"""Search over training settings for what forgets most, keeps most and reconstructs best."""

from sae_lens_contrastive.search.run import plan_search as plan_search
from sae_lens_contrastive.search.run import run_search as run_search
from sae_lens_contrastive.search.spec import Dimension as Dimension
from sae_lens_contrastive.search.spec import Search as Search
from sae_lens_contrastive.search.spec import SearchSpec as SearchSpec
from sae_lens_contrastive.search.spec import resolve_search as resolve_search
from sae_lens_contrastive.search.trials import TrialRecord as TrialRecord
