"""What a search found, for people: ``report.md``, ``report.html`` with charts, ``trials.csv``."""

from fmnist_pl.search.report.write import write_report

__all__ = ["write_report"]
