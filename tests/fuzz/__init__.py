"""Coverage-guided fuzzing of what comes from the network."""
