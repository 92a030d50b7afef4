"""What the state still holds, read out by a linear regression: forgotten, or only not used?"""

Member = "probe:Stored"
