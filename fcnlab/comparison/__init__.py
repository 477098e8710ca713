"""Which of several trainings is better, and whether that is more than chance: tables, statistics and figures."""

from fcnlab.comparison.comparison import Comparison, compare
from fcnlab.comparison.groups import Group
from fcnlab.comparison.report import markdown, write_report
from fcnlab.comparison.significance import Difference
from fcnlab.comparison.terminal import show

__all__ = ["Comparison", "Difference", "Group", "compare", "markdown", "show", "write_report"]
