"""How much memory the text itself rewards, without a model: what a held-out code gains by it."""

Member = "probe:Ceiling"
