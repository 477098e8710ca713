"""What predictions are measured by: the confusion matrix, boundaries, and the partition into cells."""
