"""Error rates by the paper's protocols, and predictions for single images."""
