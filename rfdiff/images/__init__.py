"""Real images: the loader of Fashion-MNIST is `rfdiff.images.fashion_mnist`, of numpy and the standard library alone.

Nothing is imported here, so that what needs the extra `images` is loaded only by those who name it.
"""
