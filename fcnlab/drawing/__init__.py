"""Draws what people look at: masks, overlays, learning curves and confusion matrices."""
