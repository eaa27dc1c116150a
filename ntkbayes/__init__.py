"""ntkbayes."""
