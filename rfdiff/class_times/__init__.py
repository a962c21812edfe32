"""Times at which each class is learned and memorised: one list of their names, one result type, one way to read them from curves."""

from rfdiff.class_times.from_curves import Reading, readings, times
from rfdiff.class_times.named_times import TIME_NAMES, ClassTimes, require_time_name, stacked

__all__ = ["TIME_NAMES", "ClassTimes", "Reading", "readings", "require_time_name", "stacked", "times"]
