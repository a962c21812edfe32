"""What a half-trained network generates: its score in the backward samplers, and who is learned and who is memorised in the samples."""

from rfdiff.generation.measures import draw_classes, generated_moments, memorised_interval, near_training, score_errors
from rfdiff.generation.runs import GeneratedNetwork, generate
from rfdiff.generation.trained_scores import EmpiricalScore, GridScore, TrainedNetwork, check_memory, train

__all__ = [
    "EmpiricalScore", "GeneratedNetwork", "GridScore", "TrainedNetwork", "check_memory", "draw_classes", "generate", "generated_moments",
    "memorised_interval", "near_training", "score_errors", "train",
]  # fmt: skip
