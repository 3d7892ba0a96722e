"""Checkpoints on the Hugging Face Hub: as a folder of files, to and fro, with a card that holds the results."""
