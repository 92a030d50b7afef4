"""N-gram counts with interpolated modified Kneser-Ney smoothing: the baseline that never trains."""

from lmcli.models.ngram.model import NGram

Member = NGram
