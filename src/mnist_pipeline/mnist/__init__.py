"""The task of this project: handwritten digits, in MNIST's convention."""
