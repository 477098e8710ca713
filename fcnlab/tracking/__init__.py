"""The MLflow side: it listens to the trainer through callbacks."""
