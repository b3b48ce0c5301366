"""Engines to compare: each is asked for the same prompts and answers, and says how fast it was."""
