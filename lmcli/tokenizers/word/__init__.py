"""Words, punctuation marks and line ends; the text comes back exactly, blanks included."""

Member = "tokenizer:WordTokenizer"
