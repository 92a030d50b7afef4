"""An LSTM whose predictions begin at those of an n-gram, and correct them."""

Member = "model:Hybrid"
