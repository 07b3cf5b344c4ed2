"""Reading images and label maps: Examples of uint8 tensors, never normalised here."""
