"""Sparse autoencoders for knowledge unlearning, on SAELens."""
