"""Real images: Fashion-MNIST, and a U-Net that is trained to denoise it, measured and sampled class by class (`rfdiff images`).

fashion_mnist, protocol and readout need numpy, xarray and the package alone; unet, training, checkpoints, classifier, sampling, evaluation
and command need the extra `images` (flax, orbax-checkpoint). Nothing is imported here, so that it is loaded only by those who name it.
"""
