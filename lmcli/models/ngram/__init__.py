"""N-gram counts with interpolated modified Kneser-Ney smoothing: the baseline that never trains."""

Member = "model:NGram"
