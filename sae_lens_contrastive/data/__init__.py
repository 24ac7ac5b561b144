"""Questions, corpora, the embedded world-facts benchmark and activation streams."""
