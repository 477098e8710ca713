"""Pictures for people to look at: masks, overlays, learning curves and confusion matrices."""
