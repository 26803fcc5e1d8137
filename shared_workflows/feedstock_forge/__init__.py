"""Feedstock Forge: what the reusable workflows and the `feedstock` command run.

One way leads through the package: trigger → meta → recipes → plan → grants → register → report.
Importing it stays cheap: Prefect, xarray and Copier load only in the command that needs them.
"""

__version__ = "0.1.0"
