"""Words, punctuation marks and line ends; the text comes back exactly, blanks included."""

from lmcli.tokenizers.word.tokenizer import WordTokenizer

Member = WordTokenizer
