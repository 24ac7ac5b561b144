"""Saved JSON becomes figures; nothing here runs a model."""
