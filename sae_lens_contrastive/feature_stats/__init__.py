"""Streaming statistics of features: update, compute, merge, state_dict."""

from sae_lens_contrastive.feature_stats.correlation import CorrelationTracker as CorrelationTracker
from sae_lens_contrastive.feature_stats.correlation import FeatureCorrelation as FeatureCorrelation
