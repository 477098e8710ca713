"""From a researcher's own files to a folder that trains: ``images/``, ``labels/``, ``dataset.yaml`` and a preview."""
