"""Features of an SAE as SAEDashboard shows them and as Neuronpedia reads them (extra `dashboard`)."""

from sae_lens_contrastive.dashboard.export import check_features as check_features
from sae_lens_contrastive.dashboard.export import export_dashboards as export_dashboards
from sae_lens_contrastive.dashboard.text_at_hook import TextAtHook as TextAtHook
from sae_lens_contrastive.dashboard.text_at_hook import check_texts as check_texts
from sae_lens_contrastive.dashboard.text_at_hook import read_text as read_text
from sae_lens_contrastive.dashboard.text_at_hook import texts_of_training as texts_of_training
