"""What an instructor decides and does around grading: the class file, overrides, exports, bundles, look-alikes."""
