"""From what a researcher has to a folder that trains: ``images/``, ``labels/``, ``dataset.yaml`` and a preview."""
