"""Staged recipes: from a stranger's pull request to a living feedstock.

A proposal is a folder, ``recipes/<id>/``. It becomes a feedstock by the same way wherever that is asked for, in a
preview or for good: the answers to the template's questions are read from its meta.yaml (:mod:`.answers`), its history
moves to where a feedstock has its recipe (:mod:`.history`), both become one commit (:mod:`.feedstock`), and that is
brought to GitHub step by step (:mod:`.create`).
"""
