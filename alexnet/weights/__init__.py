"""Weights from other programs, and for them: what their files hold, turned into checkpoints and back."""
