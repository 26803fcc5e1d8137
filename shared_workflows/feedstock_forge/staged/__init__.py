"""Staged recipes: from a stranger's pull request to a living feedstock."""
