"""Losses over features, views and scores; they import nothing of the project outside this folder."""
