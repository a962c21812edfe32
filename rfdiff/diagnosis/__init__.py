"""From labelled data to a diagnosis: what theory says of each class of the fitted law, and how far networks on these data bear it out."""

from rfdiff.diagnosis.assembly import diagnose
from rfdiff.diagnosis.data_law import Setting, fitted_law, problem_at
from rfdiff.diagnosis.page import render_page
from rfdiff.diagnosis.verdicts import Statement, statements

__all__ = ["Setting", "Statement", "diagnose", "fitted_law", "problem_at", "render_page", "statements"]
