"""What was opened and is to be closed: brackets, quotes, tags of the user's own text."""

Member = "probe:Closing"
