"""One page of HTML that holds everything a folder's results say."""

from sae_lens_contrastive.report.page.write import write_page as write_page
