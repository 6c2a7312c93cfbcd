"""Verdicts as tables, JSON, and a page of HTML."""
