"""From an image and its discs to masks of cord, canal, vertebrae and discs."""
