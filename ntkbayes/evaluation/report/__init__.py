"""The report of a comparison: one HTML file that needs no other, and what it says in words."""

from ntkbayes.evaluation.report.verdict import verdict, verdict_baselines
from ntkbayes.evaluation.report.writing import write_report

__all__ = ["verdict", "verdict_baselines", "write_report"]
