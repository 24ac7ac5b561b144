"""Ranks: processes that train one SAE together. With one rank nothing here communicates or changes a number."""

from sae_lens_contrastive.distributed.batch_share import BatchShare as BatchShare
from sae_lens_contrastive.distributed.batch_share import whole_rows as whole_rows
from sae_lens_contrastive.distributed.batch_share import whole_sum as whole_sum
from sae_lens_contrastive.distributed.collectives import add_up_gradients as add_up_gradients
from sae_lens_contrastive.distributed.collectives import by_first as by_first
from sae_lens_contrastive.distributed.collectives import check_agreement as check_agreement
from sae_lens_contrastive.distributed.collectives import least as least
from sae_lens_contrastive.distributed.collectives import on_any_rank as on_any_rank
from sae_lens_contrastive.distributed.collectives import row_counts as row_counts
from sae_lens_contrastive.distributed.collectives import rows_of_all as rows_of_all
from sae_lens_contrastive.distributed.collectives import summed as summed
from sae_lens_contrastive.distributed.collectives import take_from_first as take_from_first
from sae_lens_contrastive.distributed.ranks import WAIT_SECONDS as WAIT_SECONDS
from sae_lens_contrastive.distributed.ranks import is_first as is_first
from sae_lens_contrastive.distributed.ranks import joined as joined
from sae_lens_contrastive.distributed.ranks import launched_rank as launched_rank
from sae_lens_contrastive.distributed.ranks import launched_ranks as launched_ranks
from sae_lens_contrastive.distributed.ranks import n_ranks as n_ranks
from sae_lens_contrastive.distributed.ranks import rank as rank
