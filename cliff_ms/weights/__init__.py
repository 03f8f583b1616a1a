"""Weights: what a file of them means, to and from PyTorch, and the engines that run them."""
