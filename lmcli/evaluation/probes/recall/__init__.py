"""What came before, recognised: words of the text that return, or facts a grammar has hidden."""

Member = "probe:Recall"
