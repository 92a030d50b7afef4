"""The page of a run or a comparison: its parts, from what was saved and what is measured for it."""
