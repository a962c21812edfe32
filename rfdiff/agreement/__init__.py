"""Where the two sides meet: simulation with its errors against theory, curve by curve and class by class."""

from rfdiff.agreement.band import FALSE_ALARM
from rfdiff.agreement.verdict import COMPARED, CONCLUSIVE, Agreement, PerCurve, assess, compare

__all__ = ["COMPARED", "CONCLUSIVE", "FALSE_ALARM", "Agreement", "PerCurve", "assess", "compare"]
