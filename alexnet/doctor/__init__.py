"""What is wrong with data, a recipe, a checkpoint, a run or the machine, and what to do about it."""
