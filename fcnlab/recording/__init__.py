"""What a training records about itself while it runs: its journal, provenance and note. Nothing here imports MLflow."""
