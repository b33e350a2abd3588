"""Accuracy reports of a predictions directory.

report.json for programs, report.md for a paper or a model card, report.html for people.
"""

from dnl_video.report.build import build_report
from dnl_video.report.markdown import headline, render_markdown
from dnl_video.report.write import save_report, write_report

__all__ = ["build_report", "headline", "render_markdown", "save_report", "write_report"]
