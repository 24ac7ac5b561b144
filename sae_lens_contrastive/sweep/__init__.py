"""Sweeps: many runs, each trained and evaluated in a job of its own, on a Ray cluster or in one process."""

from sae_lens_contrastive.sweep.plan import plan_sweep as plan_sweep
from sae_lens_contrastive.sweep.run import run_sweep as run_sweep
from sae_lens_contrastive.sweep.spec import Resources as Resources
from sae_lens_contrastive.sweep.spec import SweepSpec as SweepSpec
from sae_lens_contrastive.sweep.spec import SweptSearch as SweptSearch
from sae_lens_contrastive.sweep.spec import resolve_sweep as resolve_sweep
