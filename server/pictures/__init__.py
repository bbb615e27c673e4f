"""Pictures of a model and of what it makes of the test images: arrays in, RGB arrays out, nothing written."""
