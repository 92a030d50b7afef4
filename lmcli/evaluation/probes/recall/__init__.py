"""What came before, known again: words of the text that return, or facts a grammar has hidden."""

from lmcli.evaluation.probes.recall.probe import Recall

Member = Recall
