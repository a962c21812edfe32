"""What a half-trained network generates: its score in the backward process, and who is learned and who is memorised in the samples."""

from rfdiff.generation.measures import ClassMoments, draw_classes, generated_moments, score_errors
from rfdiff.generation.results import Generation, at_nearest_time, nearest_time, times_in
from rfdiff.generation.runs import SampleStatistics, generate
from rfdiff.generation.trained_scores import EmpiricalScore, GridScore, TrainedNetwork, check_memory, train

__all__ = [
    "ClassMoments", "EmpiricalScore", "Generation", "GridScore", "SampleStatistics", "TrainedNetwork", "at_nearest_time", "check_memory",
    "draw_classes", "generate", "generated_moments", "nearest_time", "score_errors", "times_in", "train",
]  # fmt: skip
