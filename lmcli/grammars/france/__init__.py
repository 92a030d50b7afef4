"""Documents that name a country, talk of other things, and need its language at the end."""

from lmcli.grammars.france.grammar import France

Member = France
