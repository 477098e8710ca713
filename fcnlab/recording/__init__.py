"""What a training says of itself while it runs: its journal, provenance and note. Nothing here imports MLflow."""
