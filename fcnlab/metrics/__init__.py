"""Metrics of predictions: the confusion matrix, boundaries, and the partition into cells."""
