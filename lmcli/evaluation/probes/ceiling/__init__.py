"""How much memory the text itself rewards, without a net: what a held-out code gains by its past."""

Member = "probe:Ceiling"
