"""The report of a comparison: one HTML file that needs no other."""

from ntkbayes.evaluation.report.writing import write_report

__all__ = ["write_report"]
