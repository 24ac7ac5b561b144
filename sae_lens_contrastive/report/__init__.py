"""Saved JSON becomes tables, figures and a page; nothing here runs a model."""

from sae_lens_contrastive.report.figures import write_figures as write_figures
from sae_lens_contrastive.report.measures import measures_table as measures_table
from sae_lens_contrastive.report.page import write_page as write_page
from sae_lens_contrastive.report.results import SavedResults as SavedResults
from sae_lens_contrastive.report.results import load_results as load_results
from sae_lens_contrastive.report.table import results_table as results_table
