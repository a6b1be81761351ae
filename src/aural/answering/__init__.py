"""Questions about sounds, answered in words: Pengi, an audio language model (Deshmukh et al., arXiv 2305.11834)."""
