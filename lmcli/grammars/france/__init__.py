"""Documents that name a country, talk of other things, and need its language at the end."""

Member = "grammar:France"
