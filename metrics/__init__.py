"""Measures of folders of images; nothing here knows how the images were made."""
