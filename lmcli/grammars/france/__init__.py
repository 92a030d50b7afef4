"""Documents that name a country, change the subject, and need its language at the end."""

Member = "grammar:France"
