"""What is done with features: grouping and selection."""
